// Small helpers to build elements. Text always goes in as text, never as markup.

type Child = Node | string | null | undefined;

type Properties = Record<string, string | boolean | ((event: Event) => void) | undefined>;

/** An element with attributes (`class`, `aria-label`, …), listeners (`onclick`) and children. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') {
      element.addEventListener(name.slice(2), value);
    } else if (value === true) {
      element.setAttribute(name, '');
    } else if (typeof value === 'string') {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child): child is Node | string => child != null));
  return element;
}

/** Sets text only when it differs, so that screen readers are not told twice. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function webAddress(address: string): string | null {
  const url = URL.canParse(address) ? new URL(address) : null;
  return url?.protocol === 'http:' || url?.protocol === 'https:' ? url.href : null;
}

/** Opens an address in a new tab if it is a web address; nothing else is ever opened. */
export function openLink(address: string): void {
  const url = webAddress(address);
  if (url) {
    window.open(url, '_blank', 'noopener,noreferrer');
  }
}

/**
 * Opens a new tab at an address that is found out only now. The tab is there before the address: browsers let a page
 * open one in answer to a click, not a while later.
 */
export async function openLater(find: () => Promise<string>): Promise<void> {
  const tab = window.open('about:blank', '_blank');
  if (!tab) {
    throw new Error('the browser lets this page open no tab');
  }
  tab.opener = null;
  try {
    const url = webAddress(await find());
    if (url === null) {
      throw new Error('its preview has no web address');
    }
    tab.location.replace(url);
  } catch (error) {
    tab.close();
    throw error;
  }
}
