// The only way this page makes elements: properties, never HTML, so that text stays text.
export function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}
