"use strict";
// Everything works on the table itself: there is no second copy of the data.
(() => {
  const text = (cell) => [...cell.childNodes].map((node) => node.nodeName === "BR" ? " | " : node.textContent).join("");
  const number = (cell) => {
    const found = cell.textContent.replace(/[,%\s]/g, "");
    return found === "" || isNaN(found) ? null : Number(found);
  };

  for (const list of document.querySelectorAll("section.list")) {
    const table = list.querySelector("table.rows");
    if (!table) continue;
    const tools = list.querySelector(".tools");
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const keys = heads.map((head) => head.dataset.key);
    const rows = [...body.rows];
    const words = new Map();
    const search = tools.querySelector("[data-search]");
    const least = tools.querySelector("[data-least]");
    const channel = tools.querySelector("[data-channel]");
    const output = tools.querySelector("output");
    tools.hidden = false;

    const wordsOf = (row) => {
      if (!words.has(row)) words.set(row, row.textContent.toLowerCase());
      return words.get(row);
    };
    const shown = () => [...body.rows].filter((row) => !row.hidden);
    const tell = (message) => { output.textContent = message; };

    const filter = () => {
      const wanted = search.value.trim().toLowerCase();
      const from = least.value === "" ? null : Number(least.value);
      const through = channel ? channel.value : "";
      for (const row of rows) {
        row.hidden = (wanted !== "" && !wordsOf(row).includes(wanted))
          || (from !== null && number(row.cells[keys.indexOf("probability")]) < from)
          || (through !== "" && row.cells[keys.indexOf("channel")].textContent !== through);
      }
      tell(`${shown().length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`);
    };
    for (const input of [search, least, channel]) if (input) input.addEventListener("input", filter);

    heads.forEach((head, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", keys[at] === "rank" ? "ascending" : "none");
      button.addEventListener("click", () => {
        // Figures begin with the highest, ranks and names with the first.
        const numeric = head.classList.contains("n");
        const before = head.getAttribute("aria-sort");
        const up = before === "none" ? !numeric || keys[at] === "rank" : before === "descending";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const held = new Map(rows.map((row) => [row, numeric ? number(row.cells[at]) : row.cells[at].textContent]));
        const compare = (a, b) => {
          const x = held.get(a), y = held.get(b);
          if (x === null || y === null) return (x === null) - (y === null);
          const order = numeric ? x - y : x.localeCompare(y, "en", { numeric: true });
          return up ? order : -order;
        };
        body.append(...rows.slice().sort(compare));
      });
    });

    // A spreadsheet takes a text that begins like this for a formula; one apostrophe taken away gives it back.
    const safe = (value) => /^[\s\p{Z}\p{C}]*[=+\-@＝＋－＠']|^[\t\r\n]/u.test(value) ? `'${value}` : value;
    const lines = (separator, quote) => [heads, ...shown().map((row) => [...row.cells])]
      .map((cells) => cells.map((cell) => quote(safe(text(cell)))).join(separator));
    const plural = (count) => `${count.toLocaleString("en")} row${count === 1 ? "" : "s"}`;

    tools.querySelector("[data-download]").addEventListener("click", (event) => {
      const content = lines(",", (value) => `"${value.replaceAll('"', '""')}"`).join("\r\n") + "\r\n";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", content], { type: "text/csv" }));
      link.download = event.target.dataset.download;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      tell(`Downloaded ${plural(shown().length)}`);
    });
    tools.querySelector("[data-copy]").addEventListener("click", async () => {
      const content = lines("\t", (value) => value.replace(/[\t\r\n]+/g, " ")).join("\n");
      try {
        await navigator.clipboard.writeText(content);
        tell(`Copied ${plural(shown().length)}`);
      } catch {
        tell("The browser does not allow copying; use Download CSV.");
      }
    });
    filter();
  }
})();
