// Files dropped on the page: sent to the task, then named where the person was about to write.

import type { Api } from './api';
import type { TerminalView } from './terminal';

/** What a shell takes as it stands; anything else is quoted. Stored names hold no quotes. */
const PLAIN = /^[\p{L}\p{N}@%+=:,./_-]+$/u;

/** A path as one types it into a shell or into an agent's input. */
export function typed(path: string): string {
  return PLAIN.test(path) ? `${path} ` : `'${path}' `;
}

/** Takes files that are dropped on `element`. `view`: the terminal that is shown, if one is. */
export function takeDrops(element: HTMLElement, api: Api, view: () => TerminalView | null, say: (text: string) => void): void {
  const files = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') ?? false;
  element.addEventListener('dragover', (event) => {
    if (files(event)) {
      // Else the browser opens the file in place of the page.
      event.preventDefault();
      element.classList.add('dropping');
    }
  });
  element.addEventListener('dragleave', () => element.classList.remove('dropping'));
  element.addEventListener('drop', (event) => {
    element.classList.remove('dropping');
    if (!files(event)) {
      return;
    }
    event.preventDefault();
    void send([...(event.dataTransfer?.files ?? [])], api, view(), say);
  });
}

/** One after the other: each is held whole on the other side. */
async function send(files: File[], api: Api, view: TerminalView | null, say: (text: string) => void): Promise<void> {
  const told = view ? (text: string): void => view.say(text) : say;
  for (const file of files) {
    told(`Attaching ${file.name}…`);
    try {
      // At a terminal the person writes the prompt; elsewhere the agent is told by one.
      const attached = await api.attach(file, view === null);
      if (attached.path === null) {
        told(`${attached.name}: ${attached.error ?? 'not attached'}`);
        continue;
      }
      view?.term.paste(typed(attached.path));
      told(`Attached ${attached.name}`);
    } catch (error) {
      told(`${file.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}
