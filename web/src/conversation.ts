// The same session as a conversation, with search.

import type { Api, Turn } from './api';
import { h, setText } from './dom';

function textOf(turn: Turn): string {
  if (typeof turn.text === 'string') {
    return turn.text;
  }
  if (typeof turn.content === 'string') {
    return turn.content;
  }
  if (Array.isArray(turn.content)) {
    return turn.content
      .map((part: { text?: string; name?: string; type?: string }) => part.text ?? (part.name ? `[${part.name}]` : ''))
      .filter(Boolean)
      .join('\n');
  }
  return '';
}

export class Conversation {
  readonly element: HTMLElement;
  private readonly list = h('ol', { class: 'turns' });
  private readonly count = h('span', { class: 'count', role: 'status' });
  private readonly query = h('input', { type: 'search', placeholder: 'Search the conversation', 'aria-label': 'Search the conversation' });
  private turns: Turn[] = [];

  constructor(private readonly api: Api) {
    this.element = h('section', { class: 'conversation', role: 'tabpanel', id: 'panel-conversation', 'aria-label': 'Conversation', tabindex: '0' },
      h('div', { class: 'search-row' }, this.query, this.count), this.list);
    this.query.addEventListener('input', () => this.render());
  }

  /** False where this server has no conversation. */
  async refresh(session: string): Promise<boolean> {
    const turns = await this.api.conversation(session);
    if (turns === null) {
      return false;
    }
    this.turns = turns;
    this.render();
    return true;
  }

  private render(): void {
    const wanted = this.query.value.trim().toLowerCase();
    const atEnd = this.element.scrollTop + this.element.clientHeight >= this.element.scrollHeight - 40;
    const shown = this.turns
      .map((turn) => ({ turn, text: textOf(turn) }))
      .filter(({ text }) => text && (!wanted || text.toLowerCase().includes(wanted)));
    this.list.replaceChildren(...shown.map(({ turn, text }) =>
      h('li', { class: `turn ${turn.role === 'user' ? 'from-user' : 'from-agent'}` },
        h('div', { class: 'who' }, turn.role, turn.at ? h('time', { datetime: turn.at }, new Date(turn.at).toLocaleTimeString()) : null),
        h('div', { class: 'text' }, ...marked(text, wanted)))));
    setText(this.count, wanted ? `${shown.length} found` : '');
    if (atEnd && !wanted) {
      this.element.scrollTop = this.element.scrollHeight;
    }
  }
}

function marked(text: string, wanted: string): (Node | string)[] {
  if (!wanted) {
    return [text];
  }
  const parts: (Node | string)[] = [];
  const lower = text.toLowerCase();
  let at = 0;
  for (let hit = lower.indexOf(wanted); hit >= 0; hit = lower.indexOf(wanted, at)) {
    parts.push(text.slice(at, hit), h('mark', {}, text.slice(hit, hit + wanted.length)));
    at = hit + wanted.length;
  }
  parts.push(text.slice(at));
  return parts;
}
