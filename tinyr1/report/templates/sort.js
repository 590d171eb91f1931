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
for (const viewer of document.querySelectorAll(".row-viewer")) {
  const controls = viewer.querySelector(".row-controls"), rows = [...viewer.querySelectorAll(".row-item")];
  const [words, outcome, domain] = controls.querySelectorAll("input, select");
  const text = (row) => [...row.querySelectorAll(".row-text")].map((part) => part.textContent).join("\n").toLowerCase();
  const fits = (select, value) => !select.value || select.value === value;
  controls.hidden = false;
  controls.oninput = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const chosen = fits(outcome, row.dataset.outcome) && fits(domain, row.dataset.domain), all = chosen && text(row);
      row.hidden = !chosen || !wanted.every((word) => all.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    viewer.querySelector("output").textContent = `${shown} of ${rows.length} rows shown`;
  };
  controls.oninput();
}
