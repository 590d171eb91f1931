for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const way = head.ariaSort === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.ariaSort = way === 1 ? "ascending" : "descending";
      const text = (row) => row.cells[column].textContent.trim().replace("−", "-");
      const number = (row) => parseFloat(text(row).replace(/^[≤<+ ]*/, "").replaceAll(",", ""));
      const order = (a, b) => {
        const [x, y] = [number(a), number(b)];
        if (isNaN(x) !== isNaN(y)) return isNaN(x) ? way : -way;
        return x - y || text(a).localeCompare(text(b), "en");
      };
      body.append(...[...body.rows].sort((a, b) => way * order(a, b)));
    };
  });
}
