// The bar that says how the agent stands, why, what it cost, and what can be looked at.

import type { Port, State } from './api';
import { h, setText } from './dom';

const WORDS: Record<string, string> = {
  starting: 'Starting',
  working: 'Working',
  idle: 'Idle',
  needs_input: 'Needs you',
  stopped: 'Stopped',
};

function money(usd: string): string {
  const value = Number(usd);
  return Number.isFinite(value) ? `$${value.toFixed(value !== 0 && value < 0.1 ? 3 : 2)}` : usd;
}

export class StatusBar {
  readonly element: HTMLElement;
  private readonly dot = h('span', { class: 'dot', 'aria-hidden': 'true' });
  private readonly word = h('strong', { class: 'word' });
  private readonly reason = h('span', { class: 'reason' });
  private readonly spend = h('span', { class: 'spend' });
  private readonly ports = h('span', { class: 'ports' });
  private chips = new Map<number, HTMLElement>();

  constructor(actions: HTMLElement, private readonly openPreview: (port: number) => void) {
    this.element = h('header', { class: 'status' },
      h('div', { class: 'state', role: 'status', 'aria-live': 'polite' }, this.dot, this.word, this.reason),
      this.ports, this.spend, actions);
    this.show(null);
  }

  show(state: State | null): void {
    const word = state ? (WORDS[state.state] ?? state.state) : '';
    this.element.dataset['state'] = state?.stalled ? 'stalled' : (state?.state ?? 'none');
    setText(this.word, state?.stalled ? `${word}, stalled` : word);
    const booting = state && state.phase !== 'ready' ? [state.phase, state.step, state.error].filter(Boolean).join(': ') : null;
    const reason = state ? (booting ?? state.reason) : '';
    setText(this.reason, reason);
    this.reason.title = reason;
    const spends = state?.sessions.flatMap((session) => (session.spend ? [session.spend] : [])) ?? [];
    this.spend.hidden = spends.length === 0;
    const total = spends.reduce((sum, spend) => sum + Number(spend.usd), 0);
    const cap = spends.find((spend) => spend.budget_usd)?.budget_usd;
    setText(this.spend, cap ? `${money(String(total))} of ${money(cap)}` : money(String(total)));
    const share = cap ? total / Number(cap) : 0;
    this.spend.dataset['level'] = share >= 1 ? 'over' : share >= 0.8 ? 'near' : 'fine';
    this.spend.title = cap ? 'Spent, and the cap' : 'Spent';
  }

  showPorts(ports: Port[]): void {
    const shown = new Map<number, Port>();
    for (const port of ports) {
      if (port.http !== false && !shown.has(port.port)) {
        shown.set(port.port, port);
      }
    }
    // What stays keeps its button: a click that is under way is not lost to a new list.
    const buttons = [...shown.values()].slice(0, 6).map((port) => {
      const what = port.process?.name ? `${port.process.name} on port ${port.port}` : `Port ${port.port}`;
      const button = this.chips.get(port.port) ?? h('button', {
        type: 'button', class: 'chip', onclick: () => this.openPreview(port.port),
      }, `:${port.port}`);
      button.title = `Open ${what}`;
      button.setAttribute('aria-label', button.title);
      return [port.port, button] as const;
    });
    this.chips = new Map(buttons);
    const wanted = buttons.map(([, button]) => button);
    [...this.ports.children].filter((button) => !wanted.some((one) => one === button)).forEach((button) => button.remove());
    wanted.forEach((button, at) => {
      if (this.ports.children[at] !== button) {
        this.ports.insertBefore(button, this.ports.children[at] ?? null);
      }
    });
  }
}
