// One terminal on the page: xterm.js with its addons, fed by a connection.

import { ClipboardAddon, type ClipboardSelectionType, type IClipboardProvider } from '@xterm/addon-clipboard';
import { FitAddon } from '@xterm/addon-fit';
import { SearchAddon } from '@xterm/addon-search';
import { UnicodeGraphemesAddon } from '@xterm/addon-unicode-graphemes';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { WebglAddon } from '@xterm/addon-webgl';
import { type ITheme, Terminal as Xterm } from '@xterm/xterm';
import { Connection } from './connection';
import { h, openLink, setText } from './dom';
import { Prompts } from './prompts';
import type { Settings } from './settings';

/** Bytes given to xterm and not parsed yet: beyond the first the server pauses, below the second it goes on. */
const PAUSE_ABOVE = 400_000;
const RESUME_BELOW = 100_000;
/** A program may put this much on the clipboard, after the person agreed. */
const MOST_CLIPBOARD = 1_000_000;
const SCROLLBACK = 10_000;

/** What terminals answer by themselves (DA, DSR, DECRPM, kitty flags, OSC and DCS reports). */
const ANSWER = /^(?:\x1b\[[?>=]?[\d;]*[cnRu]|\x1b\[\??[\d;]*\$y|\x1b[\]P][^\x07\x1b]*(?:\x07|\x1b\\))+$/;
const KEY_LIKE = /^\x1b\[(?:1;\d+R|\d+(?:;[\d:]*)*u)$/;

export interface Callbacks {
  title(title: string): void;
  status(status: string): void;
  exit(text: string): void;
  ask(question: string): Promise<boolean>;
  /** Opens a page of a server in the container. False if none is known on this port. */
  openPreview(port: number, path: string): boolean;
}

export class TerminalView {
  readonly element: HTMLElement;
  readonly term: Xterm;
  readonly search = new SearchAddon();
  exited: string | null = null;
  private readonly fit = new FitAddon();
  private readonly connection: Connection;
  private readonly prompts: Prompts;
  private readonly host: HTMLElement;
  private readonly notice: HTMLElement;
  private readonly takeOver: HTMLButtonElement;
  private pending = 0;
  private paused = false;
  private replaying = 0;
  private own = true;
  private readOnly = false;
  private ctrlNext = false;
  private frame = 0;

  constructor(
    readonly id: string,
    base: string,
    token: () => Promise<string>,
    settings: Settings,
    theme: ITheme,
    private readonly callbacks: Callbacks,
  ) {
    this.host = h('div', { class: 'xterm-host' });
    this.takeOver = h('button', { class: 'chip take-over', type: 'button', onclick: () => this.takeSize() },
      'Use this window’s size');
    this.notice = h('div', { class: 'notice', role: 'status' });
    this.element = h('section', { class: 'terminal', role: 'tabpanel', id: `panel-${id}`, 'aria-label': `Terminal ${id}` },
      this.host, this.takeOver, this.notice);
    this.takeOver.hidden = true;
    this.term = new Xterm({
      allowProposedApi: true,
      cursorBlink: false,
      fontFamily: 'ui-monospace, "SF Mono", "Cascadia Mono", "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
      fontSize: settings.fontSize,
      lineHeight: 1.15,
      macOptionIsMeta: true,
      minimumContrastRatio: 3,
      overviewRuler: { width: 8 },
      rightClickSelectsWord: true,
      screenReaderMode: settings.screenReader,
      scrollback: SCROLLBACK,
      theme,
      linkHandler: { activate: (_, address) => this.follow(address) },
    });
    this.prompts = new Prompts(this.term, () => this.term.options.theme?.red ?? 'red');
    this.term.loadAddon(this.fit);
    this.term.loadAddon(this.search);
    this.term.loadAddon(new UnicodeGraphemesAddon());
    this.term.loadAddon(new WebLinksAddon((_, address) => this.follow(address)));
    this.term.loadAddon(new ClipboardAddon(undefined, this.clipboard()));
    this.term.onData((data) => this.onData(data));
    this.term.onBinary((data) => this.connection.typeBytes(Uint8Array.from(data, (c) => c.charCodeAt(0))));
    this.term.attachCustomKeyEventHandler((event) => this.onKey(event));
    this.connection = new Connection(base, token, () => this.proposed(), {
      output: (bytes, replay) => this.write(bytes, replay),
      snapshot: (bytes, skipped) => {
        this.term.reset();
        this.write(bytes, true);
        if (skipped > 0) {
          this.say(`Skipped ${skipped.toLocaleString()} bytes to catch up`);
        }
      },
      title: (title) => callbacks.title(title),
      size: (size, own) => this.onSize(size.columns, size.rows, own),
      exit: (text) => {
        this.exited = text;
        this.say(`Ended: ${text}`, true);
        callbacks.exit(text);
      },
      status: (status) => this.onStatus(status),
      readOnly: (readOnly) => {
        this.readOnly = readOnly;
        this.term.options.disableStdin = readOnly;
      },
    });
  }

  /** Puts the terminal on the page (it must be visible, to be measured) and connects it. */
  open(): void {
    this.term.open(this.host);
    this.useWebgl();
    this.fitNow();
    new ResizeObserver(() => this.fitSoon()).observe(this.host);
    void this.connection.connect();
  }

  private useWebgl(): void {
    // Phones take the context away whenever the page is in the background, and show few cells.
    if (matchMedia('(pointer: coarse)').matches) {
      return;
    }
    try {
      const webgl = new WebglAddon();
      // Without the context the addon draws nothing more; the DOM renderer takes over once it is gone.
      webgl.onContextLoss(() => webgl.dispose());
      this.term.loadAddon(webgl);
    } catch {
      // No WebGL 2 here: the DOM renderer stays.
    }
  }

  private write(bytes: Uint8Array, replay: boolean): void {
    this.pending += bytes.length;
    this.replaying += replay ? 1 : 0;
    if (!this.paused && this.pending > PAUSE_ABOVE) {
      this.paused = true;
      this.connection.pause(true);
    }
    this.term.write(bytes, () => {
      this.pending -= bytes.length;
      this.replaying -= replay ? 1 : 0;
      if (this.paused && this.pending < RESUME_BELOW) {
        this.paused = false;
        this.connection.pause(false);
      }
    });
  }

  private onData(data: string): void {
    // A replayed query was answered long ago.
    if (this.replaying > 0 && ANSWER.test(data) && !KEY_LIKE.test(data)) {
      return;
    }
    this.type(data);
  }

  /** Types text as if from the keyboard. */
  type(data: string): void {
    let text = data;
    if (this.ctrlNext && data.length === 1) {
      this.setCtrl(false);
      const code = data.toUpperCase().charCodeAt(0);
      text = code >= 0x40 && code <= 0x5f ? String.fromCharCode(code & 0x1f) : data;
    }
    if (!this.readOnly && !this.connection.type(text)) {
      this.say('Not connected: what you typed was not sent');
    }
  }

  ctrlListener: (on: boolean) => void = () => {};

  /** Makes the next character a control character (the keys bar's Ctrl). */
  setCtrl(on: boolean): void {
    this.ctrlNext = on;
    this.ctrlListener(on);
  }

  private onKey(event: KeyboardEvent): boolean {
    if (event.type !== 'keydown' || !event.ctrlKey || !event.shiftKey || event.altKey) {
      return true;
    }
    switch (event.code) {
      case 'KeyC':
        if (this.term.hasSelection()) {
          event.preventDefault();
          void navigator.clipboard?.writeText(this.term.getSelection());
          return false;
        }
        return true;
      case 'KeyV':
        event.preventDefault();
        void this.paste();
        return false;
      case 'ArrowUp':
      case 'ArrowDown':
        event.preventDefault();
        this.prompts.jump(event.code === 'ArrowUp');
        return false;
      default:
        return true;
    }
  }

  async paste(): Promise<void> {
    try {
      this.term.paste(await navigator.clipboard.readText());
    } catch {
      this.say('The browser does not let the page read the clipboard; paste with the browser’s own key');
    }
  }

  private clipboard(): IClipboardProvider {
    return {
      // Programs in the terminal never read the clipboard.
      readText: () => Promise.resolve(''),
      writeText: async (_: ClipboardSelectionType, text: string) => {
        if (text.length === 0 || text.length > MOST_CLIPBOARD || this.replaying > 0) {
          return;
        }
        const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
        if (await this.callbacks.ask(`A program wants to copy this to your clipboard:\n\n${shown}`)) {
          await navigator.clipboard?.writeText(text);
        }
      },
    };
  }

  private follow(address: string): void {
    const local = /^https?:\/\/(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]):(\d+)(\/.*)?$/.exec(address);
    if (!local || !this.callbacks.openPreview(Number(local[1]), local[2] ?? '/')) {
      openLink(address);
    }
  }

  private proposed(): { columns: number; rows: number } {
    const size = this.fit.proposeDimensions();
    const usable = size && Number.isFinite(size.cols) && Number.isFinite(size.rows);
    return usable ? { columns: Math.max(2, size.cols), rows: Math.max(2, size.rows) } : { columns: this.term.cols, rows: this.term.rows };
  }

  private fitSoon(): void {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.fitNow());
  }

  /** Tells the server this window's size; the terminal takes it when it is this viewer's to decide. */
  fitNow(): void {
    if (this.host.clientWidth === 0) {
      return;
    }
    const { columns, rows } = this.proposed();
    this.connection.resize({ columns, rows });
    if (this.own && !this.readOnly) {
      this.term.resize(columns, rows);
    }
    this.showTakeOver();
  }

  private onSize(columns: number, rows: number, own: boolean): void {
    this.own = own;
    if (columns !== this.term.cols || rows !== this.term.rows) {
      this.term.resize(columns, rows);
    }
    this.showTakeOver();
  }

  private showTakeOver(): void {
    const { columns, rows } = this.proposed();
    const fits = columns === this.term.cols && rows === this.term.rows;
    this.takeOver.hidden = this.own || this.readOnly || fits || this.exited !== null;
    this.element.classList.toggle('letterboxed', !this.own && !fits);
  }

  private takeSize(): void {
    this.connection.resize(this.proposed());
    this.connection.takeOver();
    this.term.focus();
  }

  private onStatus(status: string): void {
    this.element.dataset['connection'] = status;
    if (status === 'waiting') {
      this.say('Connection lost. Trying again…', true);
    } else if (status === 'open') {
      this.say('');
    } else if (status === 'refused') {
      this.say('This terminal cannot be opened: the link or token is no longer valid', true);
    }
    this.callbacks.status(status);
  }

  private noticeTimer: number | undefined;

  say(text: string, stays = false): void {
    clearTimeout(this.noticeTimer);
    setText(this.notice, text);
    if (text && !stays) {
      this.noticeTimer = setTimeout(() => setText(this.notice, ''), 6000);
    }
  }

  update(settings: Settings, theme: ITheme): void {
    this.term.options.theme = theme;
    this.term.options.screenReaderMode = settings.screenReader;
    if (this.term.options.fontSize !== settings.fontSize) {
      this.term.options.fontSize = settings.fontSize;
      this.fitSoon();
    }
  }

  dispose(): void {
    this.connection.dispose();
    this.term.dispose();
    this.element.remove();
  }
}
