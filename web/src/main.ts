// The page: puts terminals, state, prompt and conversation together.

import '@xterm/xterm/css/xterm.css';
import { Api, ApiError, type Port, type Session, type State, takeToken, type TerminalInfo } from './api';
import { takeDrops } from './attach';
import { Conversation } from './conversation';
import { h, openLater, setText } from './dom';
import { keysBar } from './keys';
import { previewAddress } from './preview';
import { PromptBox } from './prompt';
import * as settings from './settings';
import { StatusBar } from './status';
import { TerminalView } from './terminal';
import * as theme from './theme';

declare global {
  interface Window {
    whim: { term: TerminalView['term'] | null };
  }
}

const CONVERSATION = 'conversation';
const POLL_TERMINALS = 4000;
const POLL_CONVERSATION = 1500;

class Page {
  private readonly root = document.getElementById('app') ?? document.body;
  private readonly choice = settings.load();
  private readonly views = new Map<string, TerminalView>();
  private readonly tabs = h('div', { class: 'tabs', role: 'tablist', 'aria-label': 'Terminals' });
  private readonly stage = h('main', { class: 'stage' });
  private readonly ask = h('dialog', { class: 'ask' });
  private readonly searchBar: HTMLElement;
  private readonly searchInput = h('input', { type: 'search', placeholder: 'Find in terminal', 'aria-label': 'Find in terminal' });
  private bar!: StatusBar;
  private prompt: PromptBox | null = null;
  private conversation: Conversation | null = null;
  private shown = '';
  private state: State | null = null;
  private ports: Port[] = [];
  private infos: TerminalInfo[] = [];
  private notified = '';

  constructor(private readonly api: Api | null) {
    window.whim = { term: null };
    this.searchBar = this.buildSearch();
    this.searchBar.hidden = true;
    theme.onSystemChange(() => this.restyle());
    document.addEventListener('keydown', (event) => this.shortcut(event));
    this.ask.addEventListener('cancel', () => this.ask.close('no'));
  }

  /** One terminal alone, opened by a link. */
  startLink(base: string): void {
    const name = 'terminal';
    this.build(false);
    this.infos = [{ id: name, kind: 'shell', state: 'running', exit: null, title: '' }];
    this.addView(name, base, async () => {
      const response = await fetch(`${base}token`, { cache: 'no-store', credentials: 'omit' });
      if (!response.ok) {
        throw new ApiError(response.status, response.statusText);
      }
      return ((await response.json()) as { token: string }).token;
    });
    this.show(name);
  }

  async start(api: Api): Promise<void> {
    this.infos = await api.terminals();
    this.build(true);
    this.syncTabs();
    const wanted = /^\/t\/([a-z0-9-]+)\/?$/.exec(location.pathname)?.[1];
    this.show(this.infos.find((info) => info.id === wanted)?.id ?? this.infos[0]?.id ?? '');
    setInterval(() => void this.refreshTerminals(api), POLL_TERMINALS);
    // An agent writes its transcript a little after its state is known, and while it stays the same.
    setInterval(() => {
      if (this.shown === CONVERSATION && !document.hidden) {
        void this.refreshConversation();
      }
    }, POLL_CONVERSATION);
    void this.followState(api);
  }

  private build(full: boolean): void {
    const colours = theme.apply(this.choice.theme);
    document.documentElement.style.setProperty('--terminal-background', colours.background ?? '');
    this.bar = new StatusBar(this.actions(full), (port) => void this.openPreview(port, '/'));
    const opener = full
      ? h('button', { type: 'button', class: 'tab-add', 'aria-label': 'Open a shell', title: 'Open a shell', onclick: () => void this.openShell() }, '+')
      : null;
    this.tabs.addEventListener('keydown', (event) => this.tabKeys(event));
    this.root.replaceChildren(this.bar.element, h('nav', { class: 'tab-row' }, this.tabs, opener, this.searchBar), this.stage);
    if (full && this.api) {
      this.prompt = new PromptBox(this.api);
      this.conversation = new Conversation(this.api);
      this.conversation.element.hidden = true;
      this.stage.append(this.conversation.element);
      takeDrops(this.stage, this.api, () => this.views.get(this.shown) ?? null, (text) => this.prompt?.say(text));
    }
    this.root.append(keysBar(() => this.views.get(this.shown) ?? null));
    if (this.prompt) {
      this.root.append(this.prompt.element);
    }
    this.root.append(this.ask);
  }

  private actions(full: boolean): HTMLElement {
    const themes = h('select', { 'aria-label': 'Theme' },
      ...(['system', 'light', 'dark', 'dracula'] as const).map((name) =>
        h('option', { value: name, selected: name === this.choice.theme }, name === 'system' ? 'Follows the system' : name[0]?.toUpperCase() + name.slice(1))));
    themes.addEventListener('change', () => {
      this.choice.theme = themes.value as settings.ThemeChoice;
      this.restyle();
    });
    const size = h('output', {}, String(this.choice.fontSize));
    const step = (by: number): void => {
      const { least, most } = settings.FONT_SIZES;
      this.choice.fontSize = Math.min(most, Math.max(least, this.choice.fontSize + by));
      setText(size, String(this.choice.fontSize));
      this.restyle();
    };
    const toggle = (label: string, on: boolean, change: (on: boolean) => void | Promise<void>): HTMLElement => {
      const box = h('input', { type: 'checkbox', checked: on });
      box.addEventListener('change', () => void change(box.checked));
      return h('label', { class: 'row' }, label, box);
    };
    const menu = h('div', { class: 'menu', id: 'menu', popover: 'auto' },
      h('label', { class: 'row' }, 'Theme', themes),
      h('div', { class: 'row' }, 'Font size', h('span', { class: 'stepper' },
        h('button', { type: 'button', 'aria-label': 'Smaller', onclick: () => step(-1) }, '−'), size,
        h('button', { type: 'button', 'aria-label': 'Larger', onclick: () => step(1) }, '+'))),
      toggle('Screen reader mode', this.choice.screenReader, (on) => { this.choice.screenReader = on; this.restyle(); }),
      full ? toggle('Notify when the agent needs me', this.choice.notify, (on) => this.setNotify(on)) : null,
      h('p', { class: 'hint' }, 'Find Ctrl+Shift+F · copy Ctrl+Shift+C · paste Ctrl+Shift+V · other prompts Ctrl+Shift+↑ ↓ · leave the terminal Ctrl+Shift+K · drop a file to attach it'));
    const search = h('button', { type: 'button', class: 'icon', 'aria-label': 'Find', title: 'Find (Ctrl+Shift+F)', onclick: () => this.openSearch() }, '⌕');
    const open = h('button', { type: 'button', class: 'icon', popovertarget: 'menu', 'aria-label': 'Settings', title: 'Settings' }, '⋯');
    return h('div', { class: 'actions' }, search, open, menu);
  }

  private async setNotify(on: boolean): Promise<void> {
    this.choice.notify = on && 'Notification' in window && (await Notification.requestPermission()) === 'granted';
    settings.save(this.choice);
  }

  private restyle(): void {
    settings.save(this.choice);
    const colours = theme.apply(this.choice.theme);
    document.documentElement.style.setProperty('--terminal-background', colours.background ?? '');
    this.views.forEach((view) => view.update(this.choice, colours));
  }

  private addView(id: string, base: string, token: () => Promise<string>): TerminalView {
    const view = new TerminalView(id, base, token, this.choice, theme.apply(this.choice.theme), {
      title: (title) => this.retitle(id, title),
      status: () => {},
      exit: () => this.syncTabs(),
      // A program gets no answer while the person has another question before them.
      ask: (question) => (this.questions > 0 ? Promise.resolve(false) : this.confirm(question)),
      openPreview: (port, path) => {
        const known = this.ports.some((one) => one.port === port);
        if (known) {
          void this.openPreview(port, path);
        }
        return known;
      },
    });
    this.views.set(id, view);
    view.element.hidden = true;
    this.stage.append(view.element);
    return view;
  }

  /** With a link of its own: previews are private, and the person is known here only. */
  private async openPreview(port: number, path: string): Promise<void> {
    const api = this.api;
    if (!api) {
      return;
    }
    try {
      await openLater(async () => previewAddress(await api.previewLink(port), path, location));
    } catch (error) {
      await this.confirm(`Port ${port} could not be opened: ${(error as Error).message}`);
    }
  }

  private retitle(id: string, title: string): void {
    const info = this.infos.find((known) => known.id === id);
    if (info) {
      info.title = title;
    }
    const label = this.tabs.querySelector<HTMLElement>(`[data-id="${id}"] .tab-title`);
    if (label) {
      label.title = title;
    }
    this.titlePage();
  }

  private titlePage(): void {
    const needs = this.state?.state === 'needs_input';
    const title = this.infos.find((info) => info.id === this.shown)?.title;
    document.title = `${needs ? '● Needs you: ' : ''}${title ? `${title} · ` : ''}whim`;
  }

  private syncTabs(): void {
    const ids = [...this.infos.map((info) => info.id), ...(this.conversationShown ? [CONVERSATION] : [])];
    const active = document.activeElement?.getAttribute('data-id');
    this.tabs.replaceChildren(...ids.map((id) => {
      const info = this.infos.find((known) => known.id === id);
      const name = id === CONVERSATION ? 'Conversation' : id;
      const ended = info?.state === 'exited' || this.views.get(id)?.exited != null;
      const selected = id === this.shown;
      const tab = h('button', {
        type: 'button', role: 'tab', class: `tab${ended ? ' ended' : ''}`, 'data-id': id, id: `tab-${id}`,
        'aria-selected': String(selected), 'aria-controls': `panel-${id}`, tabindex: selected ? '0' : '-1',
        onclick: () => this.show(id),
      }, h('span', { class: 'tab-title', title: info?.title ?? '' }, name));
      if (this.api && info?.kind === 'shell') {
        const close = h('button', {
          type: 'button', class: 'tab-close', 'aria-label': `Close ${id}`, title: 'Close', tabindex: selected ? '0' : '-1',
          onclick: () => void this.closeShell(id),
        }, '×');
        return h('span', { class: 'tab-group', role: 'presentation' }, tab, close);
      }
      return tab;
    }));
    if (active) {
      this.tabs.querySelector<HTMLElement>(`[role=tab][data-id="${active}"]`)?.focus();
    }
  }

  private conversationShown = false;
  private lastTerminal = '';
  /** The last question; answered when it is settled. */
  private asked: Promise<unknown> = Promise.resolve();
  private questions = 0;
  /** How often the list of terminals was changed here. */
  private changes = 0;

  private show(id: string): void {
    this.shown = id;
    this.views.forEach((view, name) => { view.element.hidden = name !== id; });
    if (this.conversation) {
      this.conversation.element.hidden = id !== CONVERSATION;
    }
    const known = this.infos.some((info) => info.id === id);
    if (known) {
      this.lastTerminal = id;
      let view = this.views.get(id);
      if (!view && this.api) {
        const api = this.api;
        view = this.addView(id, `/t/${id}/`, () => api.terminalToken(id));
      }
      if (view) {
        view.element.hidden = false;
        if (!view.term.element) {
          view.open();
        }
        view.fitNow();
        view.term.focus();
        window.whim.term = view.term;
      }
    } else if (id === CONVERSATION) {
      void this.refreshConversation();
      this.conversation?.element.focus();
    }
    this.syncTabs();
    this.titlePage();
  }

  private tabKeys(event: KeyboardEvent): void {
    const tabs = [...this.tabs.querySelectorAll<HTMLElement>('[role=tab]')];
    const at = tabs.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (at >= 0 && to !== undefined) {
      event.preventDefault();
      tabs[(to + tabs.length) % tabs.length]?.focus();
    }
  }

  private shortcut(event: KeyboardEvent): void {
    if (!event.ctrlKey || !event.shiftKey || event.altKey) {
      return;
    }
    if (event.code === 'KeyF') {
      event.preventDefault();
      this.openSearch();
    } else if (event.code === 'KeyK') {
      // A terminal takes Tab for itself: this is the keyboard's way out.
      event.preventDefault();
      this.tabs.querySelector<HTMLElement>('[aria-selected=true]')?.focus();
    }
  }

  private buildSearch(): HTMLElement {
    const find = (back: boolean): void => {
      const view = this.views.get(this.shown);
      if (back) {
        view?.search.findPrevious(this.searchInput.value);
      } else {
        view?.search.findNext(this.searchInput.value);
      }
    };
    this.searchInput.addEventListener('input', () => find(true));
    this.searchInput.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') {
        find(!event.shiftKey);
      } else if (event.key === 'Escape') {
        this.searchBar.hidden = true;
        this.views.get(this.shown)?.term.focus();
      }
    });
    return h('div', { class: 'find', role: 'search' }, this.searchInput,
      h('button', { type: 'button', class: 'icon', 'aria-label': 'Previous', onclick: () => find(true) }, '↑'),
      h('button', { type: 'button', class: 'icon', 'aria-label': 'Next', onclick: () => find(false) }, '↓'));
  }

  private openSearch(): void {
    this.searchBar.hidden = !this.searchBar.hidden;
    if (!this.searchBar.hidden) {
      this.searchInput.focus();
      this.searchInput.select();
    }
  }

  /** One question after the other: what a program asks must not take the place of what the person was asked. */
  private confirm(question: string): Promise<boolean> {
    this.questions += 1;
    const answer = this.asked.then(() => this.confirmNow(question)).finally(() => { this.questions -= 1; });
    this.asked = answer;
    return answer;
  }

  private confirmNow(question: string): Promise<boolean> {
    return new Promise((resolve) => {
      const answer = (value: string): void => this.ask.close(value);
      this.ask.replaceChildren(h('p', {}, question), h('div', { class: 'options' },
        h('button', { type: 'button', class: 'quiet', onclick: () => answer('no') }, 'Cancel'),
        h('button', { type: 'button', class: 'primary', onclick: () => answer('yes') }, 'Allow')));
      this.ask.addEventListener('close', () => resolve(this.ask.returnValue === 'yes'), { once: true });
      this.ask.showModal();
    });
  }

  private async openShell(): Promise<void> {
    if (!this.api) {
      return;
    }
    try {
      const info = await this.api.openShell();
      this.changes += 1;
      this.infos.push({ ...info, kind: info.kind ?? 'shell', state: 'running', exit: null, title: info.title ?? '' });
      this.show(info.id);
    } catch (error) {
      await this.confirm(`The shell could not be opened: ${(error as Error).message}`);
    }
  }

  private async closeShell(id: string): Promise<void> {
    if (!this.api) {
      return;
    }
    const running = this.infos.find((info) => info.id === id)?.state === 'running' && this.views.get(id)?.exited == null;
    if (running && !(await this.confirm(`Close ${id}? What runs in it will be ended.`))) {
      return;
    }
    try {
      await this.api.closeTerminal(id);
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) {
        await this.confirm(`${id} could not be closed: ${(error as Error).message}`);
        return;
      }
    }
    this.changes += 1;
    this.views.get(id)?.dispose();
    this.views.delete(id);
    this.infos = this.infos.filter((info) => info.id !== id);
    this.show(this.shown === id ? (this.infos[0]?.id ?? '') : this.shown);
  }

  private async refreshTerminals(api: Api): Promise<void> {
    if (document.visibilityState === 'hidden') {
      return;
    }
    const changes = this.changes;
    try {
      const infos = await api.terminals();
      if (changes !== this.changes) {
        return;
      }
      const before = JSON.stringify(this.infos.map(({ id, state }) => [id, state]));
      this.infos = infos;
      this.renewViews();
      if (JSON.stringify(infos.map(({ id, state }) => [id, state])) !== before) {
        this.syncTabs();
      }
    } catch {
      // The terminals themselves say that the connection is lost.
    }
  }

  /** A restarted agent runs in a new terminal of the same name, and one that somebody else closed is gone. */
  private renewViews(): void {
    const over = [...this.views.values()].filter((view) => {
      const info = this.infos.find((known) => known.id === view.id);
      return info ? info.state === 'running' && view.exited != null : true;
    });
    for (const view of over) {
      view.dispose();
      this.views.delete(view.id);
    }
    if (over.some((view) => view.id === this.shown)) {
      const there = this.infos.some((info) => info.id === this.shown);
      this.show(there ? this.shown : (this.infos[0]?.id ?? ''));
    }
  }

  /** Follows the state by long polls; where this server has none, the bar stays empty. */
  private async followState(api: Api): Promise<void> {
    let wait = 500;
    for (;;) {
      const began = performance.now();
      try {
        const state = await api.state(this.state?.seq ?? null, AbortSignal.timeout(40_000));
        this.onState(state, api);
        wait = 500;
      } catch (error) {
        if (error instanceof ApiError && (error.status === 404 || error.status === 501)) {
          return;
        }
        wait = Math.min(wait * 2, 15_000);
      }
      // A server that answers at once must not be asked in a tight loop.
      const rest = Math.max(wait - (performance.now() - began), 0);
      await new Promise((resolve) => setTimeout(resolve, rest * (0.75 + Math.random() / 2)));
    }
  }

  private onState(state: State, api: Api): void {
    const first = this.state === null;
    const ports = String(this.state?.ports);
    this.state = state;
    this.bar.show(state);
    const session = state.sessions.find((known) => known.terminal === this.shown) ?? state.sessions[0] ?? null;
    const dialog = session?.dialog ?? state.dialog ?? null;
    this.prompt?.show(session, state.state === 'needs_input' ? dialog : null);
    this.notify(state, session);
    this.titlePage();
    if (first || ports !== String(state.ports)) {
      api.ports().then((known) => { this.ports = known; this.bar.showPorts(known); }, () => {});
    }
    // A command of one's own keeps no transcript that could be shown.
    const there = state.sessions.some((known) => known.agent !== 'custom');
    if (there !== this.conversationShown) {
      this.conversationShown = there;
      this.syncTabs();
    }
    if (this.shown === CONVERSATION) {
      void this.refreshConversation();
    }
  }

  private async refreshConversation(): Promise<void> {
    // That of the agent whose terminal was shown last.
    const told = this.state?.sessions.filter((known) => known.agent !== 'custom') ?? [];
    const session = told.find((known) => known.terminal === this.lastTerminal) ?? told.find((known) => known.id === 'main') ?? told[0];
    if (!session || !this.conversation) {
      return;
    }
    try {
      await this.conversation.refresh(session.id);
    } catch {
      // The next state tries again.
    }
  }

  private notify(state: State, session: Session | null): void {
    const key = state.state === 'needs_input' ? `${state.since} ${session?.dialog?.id ?? ''}` : '';
    if (key && key !== this.notified && this.choice.notify && document.visibilityState === 'hidden') {
      const note = new Notification('The agent needs you', { body: session?.dialog?.text ?? state.reason, tag: 'whim' });
      note.onclick = () => { window.focus(); note.close(); };
    }
    this.notified = key;
  }
}

/** Asks for the control token. */
function signIn(message: string): void {
  theme.apply(settings.load().theme);
  const input = h('input', { type: 'password', autocomplete: 'off', 'aria-label': 'Control token', placeholder: 'Control token' });
  const form = h('form', { class: 'sign-in', onsubmit: (event) => {
    event.preventDefault();
    Api.remember(input.value.trim());
    location.reload();
  } },
  h('h1', {}, 'whim'), h('p', {}, message), input, h('button', { type: 'submit', class: 'primary' }, 'Open'));
  document.getElementById('app')?.replaceChildren(form);
  input.focus();
}

async function begin(): Promise<void> {
  const link = /^(.*\/t\/cap-[\w-]+)\/?$/.exec(location.pathname)?.[1];
  if (link) {
    new Page(null).startLink(`${link}/`);
    return;
  }
  const token = takeToken();
  if (!token) {
    signIn('Paste the control token, or open the address that was printed at the start.');
    return;
  }
  const api = new Api(token);
  try {
    await new Page(api).start(api);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      Api.forget();
      signIn('That token was not accepted.');
    } else {
      document.getElementById('app')?.replaceChildren(h('form', { class: 'sign-in' }, h('h1', {}, 'whim'),
        h('p', { role: 'alert' }, `The server cannot be reached: ${(error as Error).message}`)));
      setTimeout(() => location.reload(), 3000);
    }
  }
}

addEventListener('hashchange', () => {
  if (takeToken()) {
    location.reload();
  }
});
void begin();
