"""What people read: workbook, tables and page of a night."""
