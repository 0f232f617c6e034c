"""What people read of a night: workbook, tables, page and worksheet."""
