// The box that queues prompts, and the questions that the agent asks.

import type { Api, Dialog, Session } from './api';
import { h, setText } from './dom';

export class PromptBox {
  readonly element: HTMLElement;
  private readonly input = h('textarea', {
    rows: '1', class: 'prompt-input', placeholder: 'Tell the agent what to do', 'aria-label': 'Prompt for the agent',
    enterkeyhint: 'send',
  });
  private readonly note = h('span', { class: 'prompt-note', role: 'status' });
  private readonly stop = h('button', { type: 'button', class: 'quiet', title: 'Interrupt the turn' }, 'Interrupt');
  private readonly send = h('button', { type: 'submit', class: 'primary' }, 'Send');
  private readonly dialog = h('div', { class: 'dialog', role: 'group', 'aria-label': 'The agent asks' });
  private session: Session | null = null;
  private shownDialog = 'null';

  constructor(private readonly api: Api) {
    const form = h('form', { class: 'prompt', onsubmit: (event) => { event.preventDefault(); void this.submit(); } },
      this.input, this.stop, this.send);
    this.element = h('div', { class: 'composer' }, this.dialog, form, this.note);
    this.dialog.hidden = true;
    this.element.hidden = true;
    this.input.addEventListener('input', () => this.grow());
    this.input.addEventListener('keydown', (event) => {
      // Enter sends, Shift+Enter breaks the line; while an input method composes, Enter belongs to it.
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        void this.submit();
      }
    });
    this.stop.addEventListener('click', () => {
      if (this.session) {
        void this.attempt(() => this.api.interrupt(this.session?.id ?? ''), '');
      }
    });
  }

  /** A word about something beside the prompts. */
  say(text: string): void {
    setText(this.note, text);
  }

  private grow(): void {
    this.input.style.height = 'auto';
    this.input.style.height = `${Math.min(this.input.scrollHeight, 160)}px`;
  }

  show(session: Session | null, dialog: Dialog | null): void {
    this.session = session;
    this.element.hidden = session === null || session.state === 'stopped';
    this.stop.hidden = session?.state !== 'working';
    const queued = session?.queued_prompts ?? 0;
    setText(this.send, session?.state === 'working' ? 'Queue' : 'Send');
    setText(this.note, queued > 0 ? `${queued} queued` : '');
    // The options of one dialog become known step by step.
    const shown = JSON.stringify(dialog);
    if (shown === this.shownDialog) {
      return;
    }
    this.shownDialog = shown;
    this.dialog.hidden = dialog === null;
    if (dialog && session) {
      const options = dialog.options.map((option, index) => {
        const label = typeof option === 'string' ? option : (option.label ?? option.text ?? option.id ?? String(index + 1));
        const value = typeof option === 'string' ? option : (option.id ?? label);
        return h('button', {
          type: 'button', class: index === 0 ? 'primary' : 'quiet',
          onclick: () => void this.attempt(() => this.api.answer(session.id, dialog.id, value), 'Answered'),
        }, label);
      });
      this.dialog.replaceChildren(h('p', {}, dialog.text), h('div', { class: 'options' }, ...options));
    }
  }

  private async submit(): Promise<void> {
    const text = this.input.value.trim();
    const session = this.session;
    if (!text || !session) {
      return;
    }
    this.send.disabled = true;
    if (await this.attempt(() => this.api.prompt(session.id, text), 'Sent')) {
      this.input.value = '';
      this.grow();
    }
    this.send.disabled = false;
  }

  private async attempt(act: () => Promise<void>, done: string): Promise<boolean> {
    try {
      await act();
      setText(this.note, done);
      return true;
    } catch (error) {
      setText(this.note, (error as Error).message);
      return false;
    }
  }
}
