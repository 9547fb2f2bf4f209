"use strict";
/* What is chosen is the state, and the state is the address: #example=2&dimension=1&shift=-2&to=5&way=3, all counted
   as on the page. Data reach the page as text nodes and as the sources of images, never as markup. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ofImages = data.modality === "images";
  const element = (id) => document.getElementById(id);
  const zero = data.shifts.indexOf(0);
  const state = { example: 0, dimension: 0, shift: data.shifts.length - 1, to: null, way: 0 };

  function make(name, text = "", attributes = {}) {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => make("option", text, { value })));
    select.value = String(chosen);
  }

  const clip = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);
  const signed = (number) => (number > 0 ? "+" : number < 0 ? "−" : "") + Math.abs(number);
  const nameOf = (index) => {
    const number = String(index + 1);
    return ofImages ? number : number + ": " + clip(data.examples[index].shown, 60);
  };

  /* A decoding; of text, what differs from `reference` between their common beginning and end is marked. */
  function decoding(content, description, reference = content) {
    if (ofImages) return make("img", "", { src: content, alt: description });
    const shown = make("span");
    const [words, others] = [content.split(" "), reference.split(" ")];
    const shorter = Math.min(words.length, others.length);
    let start = 0;
    while (start < shorter && words[start] === others[start]) start += 1;
    let end = 0;
    while (end < shorter - start && words[words.length - 1 - end] === others[others.length - 1 - end]) end += 1;
    const stop = words.length - end;
    const parts = [words.slice(0, start), words.slice(start, stop), words.slice(stop)];
    parts.forEach((part, place) => {
      if (!part.length) return;
      if (shown.childNodes.length) shown.append(" ");
      shown.append(place === 1 ? make("mark", part.join(" ")) : part.join(" "));
    });
    return shown;
  }

  function captioned(content, caption, reference) {
    if (!ofImages) return decoding(content, caption, reference);
    const figure = make("figure");
    figure.append(decoding(content, caption), make("figcaption", caption));
    return figure;
  }

  function series(list, contents, tags, current, reference) {
    list.replaceChildren(...contents.map((content, place) => {
      const item = make("li");
      if (place === current) item.setAttribute("aria-current", "true");
      const tag = make("span", tags[place], { class: "tag" });
      const shown = decoding(content, tags[place], reference);
      item.append(...(ofImages ? [shown, tag] : [tag, shown]));
      return item;
    }));
  }

  function showExample() {
    const example = data.examples[state.example];
    element("example").value = String(state.example);
    const heat = element("heat-" + (state.example + 1)).cloneNode(true);
    heat.removeAttribute("id");
    element("chosen").replaceChildren(heat);
    const head = make("tr");
    const step = ofImages ? "row" : "token";
    head.append(...[step, "rate, nats", "committed, nats"].map((text) => make("th", text, { scope: "col" })));
    element("steps").replaceChildren(head, ...example.rate_nats.map((nats, place) => {
      const row = make("tr");
      const name = (place + 1) + (ofImages ? "" : " " + example.pieces[place]);
      row.append(
        make("th", name, { scope: "row" }),
        make("td", nats.toFixed(2), { class: "number" }),
        make("td", example.committed_nats[place].toFixed(2), { class: "number" }),
      );
      return row;
    }));
    element("neighbours").replaceChildren(...example.neighbours.map((neighbour) => {
      const item = make("li");
      const link = make("a", "", { href: "#example=" + (neighbour.example + 1) });
      const other = data.examples[neighbour.example];
      link.append(decoding(other.shown, "image " + (neighbour.example + 1)));
      const distance = (neighbour.example + 1) + " at " + neighbour.distance.toFixed(2);
      const tag = make("span", distance, { class: "tag", title: "its number, and how far away it is" });
      item.append(...(ofImages ? [link, tag] : [tag, link]));
      return item;
    }));
  }

  function showMoved(example) {
    const dimension = data.dimensions[state.dimension];
    const decodings = example.decodings.by_dimension[state.dimension];
    const shift = data.shifts[state.shift];
    const amount = signed(shift) + " sd";
    element("dimension").value = String(state.dimension);
    element("shift").value = String(state.shift);
    element("shift").setAttribute("aria-valuetext", signed(shift) + " standard deviations");
    element("shift-value").textContent =
      amount + " (" + signed(Number((shift * dimension.prior_standard_deviation).toFixed(2))) + ")";
    const shown = [captioned(decodings[state.shift], "shifted by " + amount, example.decodings.unmoved)];
    if (ofImages) {
      shown.unshift(captioned(example.shown, "held out"), captioned(example.decodings.unmoved, "decoded, shift 0"));
    }
    element("moved").replaceChildren(...shown);
    const tags = data.shifts.map((each) => signed(each) + " sd");
    series(element("all-shifts"), decodings, tags, state.shift, example.decodings.unmoved);
  }

  function showWay(example) {
    const ways = example.decodings.ways;
    const way = ways.find((each) => each.to === state.to) || ways[0];
    state.to = way.to;
    const last = way.decoded.length - 1;
    state.way = Math.min(state.way, last);
    fill(element("to"), ways.map((each) => [each.to, "the " + each.which + ", " + nameOf(each.to)]), way.to);
    element("way").max = String(last);
    element("way").value = String(state.way);
    element("way-value").textContent = "w = " + (state.way / last).toFixed(2);
    const shown = [captioned(way.decoded[state.way], element("way-value").textContent)];
    if (ofImages) {
      shown.unshift(captioned(example.shown, "from"));
      shown.push(captioned(data.examples[way.to].shown, "to"));
    }
    element("between").replaceChildren(...shown);
    const tags = way.decoded.map((_, place) => (place / last).toFixed(2));
    series(element("all-points"), way.decoded, tags, state.way);
  }

  function show() {
    showExample();
    const example = data.examples[state.example];
    const decoded = "decodings" in example;
    element("not-decoded").hidden = decoded;
    document.querySelectorAll(".decoded").forEach((panel) => { panel.hidden = !decoded; });
    if (!decoded) return;
    showMoved(example);
    showWay(example);
    series(element("drawn"), example.decodings.drawn, example.decodings.drawn.map((_, place) => String(place + 1)));
  }

  function address() {
    const parts = { example: state.example + 1, dimension: data.dimensions[state.dimension].index + 1 };
    parts.shift = data.shifts[state.shift];
    if (state.to !== null) Object.assign(parts, { to: state.to + 1, way: state.way + 1 });
    return "#" + new URLSearchParams(parts).toString();
  }

  /* Whatever of the address does not exist on this page is left as it was. */
  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const at = (name, list) => {
      const place = asked.has(name) ? list.indexOf(Number(asked.get(name))) : -1;
      return place < 0 ? state[name] : place;
    };
    state.example = at("example", data.examples.map((_, place) => place + 1));
    state.dimension = at("dimension", data.dimensions.map((dimension) => dimension.index + 1));
    state.shift = at("shift", data.shifts);
    if (asked.has("to")) state.to = Number(asked.get("to")) - 1;
    const way = Number(asked.get("way"));
    if (Number.isInteger(way) && way > 0) state.way = way - 1;
  }

  function change(changes) {
    Object.assign(state, changes);
    show();
    history.replaceState(null, "", address());
  }

  const count = data.examples.length;
  const listened = {
    example: (value) => ({ example: value, to: null }),
    dimension: (value) => ({ dimension: value }),
    shift: (value) => ({ shift: value }),
    to: (value) => ({ to: value }),
    way: (value) => ({ way: value }),
  };
  for (const [id, changes] of Object.entries(listened)) {
    element(id).addEventListener("input", (event) => change(changes(Number(event.target.value))));
  }
  for (const [id, step] of [["previous", count - 1], ["next", 1]]) {
    element(id).addEventListener("click", () => change({ example: (state.example + step) % count, to: null }));
  }
  window.addEventListener("hashchange", () => {
    readAddress();
    show();
    element("explore-title").focus();
  });

  fill(element("example"), data.examples.map((_, index) => [index, nameOf(index)]), 0);
  fill(
    element("dimension"),
    data.dimensions.map((dimension, place) => [
      place, (dimension.index + 1) + ": " + dimension.rate_nats.toFixed(2) + " nats of the rate",
    ]),
    0,
  );
  element("shift").min = "0";
  element("shift").max = String(data.shifts.length - 1);
  element("way").min = "0";
  state.shift = zero;
  readAddress();
  show();
  element("explore").hidden = false;
})();
