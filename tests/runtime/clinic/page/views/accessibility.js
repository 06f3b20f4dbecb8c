() => {
  // What a screen reader, a weak eye and a narrow screen need; a list of what is wrong.
  const problems = [];
  const seen = (node) => node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && node.getClientRects().length > 0;
  const name = (node) => {
    const labelled = (node.getAttribute("aria-labelledby") || "").split(/\s+/).filter(Boolean).map((id) => document.getElementById(id)?.textContent || "").join(" ");
    const label = node.labels ? [...node.labels].map((one) => one.textContent).join(" ") : "";
    return (labelled || node.getAttribute("aria-label") || label || node.textContent || "").trim();
  };
  const say = (node, what) => problems.push(`${what}: ${node.outerHTML.slice(0, 120)}`);

  for (const node of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, progress"))
    if (seen(node) && !name(node)) say(node, "no name");
  for (const node of document.querySelectorAll("img")) if (!node.hasAttribute("alt")) say(node, "no alt");
  for (const node of document.querySelectorAll("[role=img], [role=region], [role=group]")) if (seen(node) && !name(node)) say(node, "no name");
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of ids.filter((one, place) => ids.indexOf(one) !== place)) problems.push(`twice the id ${id}`);
  if (document.querySelectorAll("h1").length !== 1) problems.push("not one h1");
  for (const part of ["main", "header", "nav", "footer", "html[lang]", "title"]) if (!document.querySelector(part)) problems.push(`no ${part}`);
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((node) => Number(node.tagName[1]));
  levels.forEach((level, place) => { if (place && level > levels[place - 1] + 1) problems.push(`h${levels[place - 1]} is followed by h${level}`); });
  if (document.documentElement.scrollWidth > innerWidth) problems.push(`wider than the screen: ${document.documentElement.scrollWidth}`);
  for (const node of document.querySelectorAll("button, .button, select, input:not([type=hidden]):not(.unseen), textarea"))
    if (seen(node) && node.getBoundingClientRect().height < 24) say(node, "too small to touch");

  const numbers = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => ((c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const style = getComputedStyle(at), stripes = style.backgroundImage.match(/rgb\([^)]*\)/g);
      if (stripes) return stripes.map(numbers);
      const colour = numbers(style.backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return [colour];
    }
    return [[255, 255, 255]];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode()); ) {
    const node = text.parentElement, style = getComputedStyle(node);
    if (!text.textContent.trim() || !seen(node) || node.closest(".unseen, .stage, .frame, svg, noscript, option, script")) continue;
    const size = parseFloat(style.fontSize), least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    for (const under of ground(node)) {
      const [a, b] = [light(numbers(style.color)), light(under)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < least) say(node, `contrast ${ratio.toFixed(2)}`);
    }
  }
  return problems;
}
