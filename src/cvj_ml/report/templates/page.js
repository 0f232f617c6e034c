"use strict";
// The page is whole without this: it adds tabs, searching, and taking a list away as a file.
(() => {
  const tabs = [...document.querySelectorAll(".tab")];
  const links = [...document.querySelectorAll("nav.tabs a")];
  const show = () => {
    const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const chosen = tabs.find((tab) => wanted && tab.contains(wanted)) || tabs[0];
    for (const tab of tabs) tab.hidden = tab !== chosen;
    for (const link of links) {
      if (link.hash === `#${chosen.id}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (wanted && wanted !== chosen) wanted.scrollIntoView();
    else if (wanted) scrollTo(0, 0);
  };
  addEventListener("hashchange", show);
  addEventListener("beforeprint", () => { for (const tab of tabs) tab.hidden = false; });
  addEventListener("afterprint", show);
  show();

  for (const button of document.querySelectorAll("[data-export]")) {
    const file = document.querySelectorAll("template[data-file]")[Number(button.dataset.export)];
    button.hidden = false;
    button.addEventListener("click", () => {
      // The byte order mark tells a spreadsheet that the text is UTF-8.
      const content = file.content.textContent.replaceAll("\n", "\r\n");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", content], { type: "text/csv" }));
      link.download = file.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  for (const list of document.querySelectorAll("section.list")) {
    const table = list.querySelector("table.rows");
    if (!table) continue;
    const tools = list.querySelector(".tools");
    const search = tools.querySelector("[data-search]");
    const output = tools.querySelector("output");
    const rows = [...table.tBodies[0].rows];
    tools.hidden = false;
    search.addEventListener("input", () => {
      const wanted = search.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
        shown += !row.hidden;
      }
      output.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    });
  }
})();
