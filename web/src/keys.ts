// The row of keys that a phone's keyboard lacks.

import { h } from './dom';
import type { TerminalView } from './terminal';

const KEYS: [label: string, name: string, data: string | ((app: boolean) => string)][] = [
  ['esc', 'Escape', '\x1b'],
  ['tab', 'Tab', '\t'],
  ['⇧tab', 'Shift Tab', '\x1b[Z'],
  ['←', 'Left', (app) => (app ? '\x1bOD' : '\x1b[D')],
  ['↑', 'Up', (app) => (app ? '\x1bOA' : '\x1b[A')],
  ['↓', 'Down', (app) => (app ? '\x1bOB' : '\x1b[B')],
  ['→', 'Right', (app) => (app ? '\x1bOC' : '\x1b[C')],
  ['^C', 'Control C', '\x03'],
  ['⏎', 'Enter', '\r'],
  ['pgup', 'Page up', '\x1b[5~'],
  ['pgdn', 'Page down', '\x1b[6~'],
];

/** `current` is asked at each press, so the bar serves whichever terminal is shown. */
export function keysBar(current: () => TerminalView | null): HTMLElement {
  const ctrl = h('button', { type: 'button', class: 'key', 'aria-pressed': 'false' }, 'ctrl');
  const press = (button: HTMLButtonElement, act: (view: TerminalView) => void): void => {
    // The terminal must keep the focus, or the phone's keyboard closes.
    button.addEventListener('pointerdown', (event) => event.preventDefault());
    button.addEventListener('click', () => {
      const view = current();
      if (view) {
        act(view);
      }
    });
  };
  press(ctrl, (view) => {
    const on = ctrl.getAttribute('aria-pressed') !== 'true';
    view.ctrlListener = (now) => ctrl.setAttribute('aria-pressed', String(now));
    view.setCtrl(on);
  });
  const buttons = KEYS.map(([label, name, data]) => {
    const button = h('button', { type: 'button', class: 'key', 'aria-label': name }, label);
    press(button, (view) => view.type(typeof data === 'string' ? data : data(view.term.modes.applicationCursorKeysMode)));
    return button;
  });
  const [escape, ...rest] = buttons;
  return h('div', { class: 'keys', role: 'toolbar', 'aria-label': 'Keys' }, escape, ctrl, ...rest);
}
