// What the server finds in every session and shell, also in those that ended and in what is not loaded here.

import type { Api, Hit, SearchAnswer } from './api';
import { h, setText } from './dom';

/** Results at once; more words find fewer. */
const LIMIT = 50;

export class Search {
  readonly element = h('section', { class: 'found', 'aria-label': 'Found everywhere' });
  private readonly count = h('p', { class: 'count', role: 'status' });
  private readonly list = h('ol', {});
  private asked = 0;

  constructor(private readonly api: Api) {
    this.element.append(this.count, this.list);
    this.element.hidden = true;
  }

  /** Shows what is found; the last question counts, whatever is answered first. */
  async find(query: string): Promise<void> {
    const asked = ++this.asked;
    this.element.hidden = false;
    this.list.replaceChildren();
    setText(this.count, 'Searching…');
    let answer: SearchAnswer;
    try {
      answer = await this.api.search(query, LIMIT);
    } catch (error) {
      if (asked === this.asked) {
        setText(this.count, (error as Error).message);
      }
      return;
    }
    if (asked !== this.asked) {
      return;
    }
    const more = answer.complete ? '' : '; the index is still being filled';
    const of = answer.total > answer.results.length ? ` of ${answer.total}` : '';
    setText(this.count, `${answer.results.length}${of} found everywhere${more}`);
    this.list.replaceChildren(...answer.results.map(result));
  }

  close(): void {
    this.asked++;
    this.element.hidden = true;
    this.list.replaceChildren();
  }
}

function result(hit: Hit): HTMLElement {
  const place = hit.task ? `${hit.task}/${hit.session}` : hit.session;
  const what = hit.kind === 'shell'
    ? [hit.exit === null ? null : `exit ${hit.exit}`, hit.directory]
    : [hit.agent, hit.role, hit.subagent ? 'sub-agent' : null];
  const time = hit.at ? h('time', { datetime: hit.at }, new Date(hit.at).toLocaleString()) : null;
  return h('li', {},
    h('div', { class: 'who' }, h('span', { class: 'role' }, place), h('span', {}, what.filter((word) => word != null).join(' ')), time),
    h('div', { class: hit.kind === 'shell' ? 'text command' : 'text' }, ...marked(hit)));
}

/** The snippet with what was found in it: places are in characters, not in UTF-16. */
function marked(hit: Hit): (Node | string)[] {
  const characters = [...hit.snippet];
  const text = (begin: number, end?: number): string => characters.slice(begin, end).join('');
  const parts: (Node | string)[] = [];
  let at = 0;
  for (const [begin, end] of hit.highlights) {
    parts.push(text(at, begin), h('mark', {}, text(begin, end)));
    at = end;
  }
  parts.push(text(at));
  return parts;
}
