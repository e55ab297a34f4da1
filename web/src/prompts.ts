// The prompts of a shell that marks them (OSC 133): jumps between them, and shows where a command failed.

import type { IDecoration, IMarker, Terminal } from '@xterm/xterm';

/** More are forgotten, oldest first; the scrollback rarely holds as many. */
const MOST = 2000;

export class Prompts {
  private marks: IMarker[] = [];
  private readonly failures = new Map<IMarker, IDecoration>();

  constructor(private readonly term: Terminal, private readonly failed: () => string) {
    term.parser.registerOscHandler(133, (data) => {
      const [kind, code] = data.split(';');
      if (kind === 'A') {
        this.begin();
      } else if (kind === 'D' && code && code !== '0') {
        this.fail(code);
      }
      return true;
    });
  }

  private begin(): void {
    const mark = this.term.registerMarker(0);
    mark.onDispose(() => {
      this.marks = this.marks.filter((other) => other !== mark);
      this.failures.delete(mark);
    });
    this.marks.push(mark);
    if (this.marks.length > MOST) {
      this.marks[0]?.dispose();
    }
  }

  /** The last prompt's command ended with an exit status that is not 0. */
  private fail(code: string): void {
    const mark = this.marks.at(-1);
    const decoration = mark && !this.failures.has(mark)
      ? this.term.registerDecoration({ marker: mark, overviewRulerOptions: { color: this.failed(), position: 'full' } })
      : undefined;
    if (mark && decoration) {
      decoration.onRender((element) => {
        element.classList.add('failed-command');
        element.title = `Exit status ${code}`;
      });
      this.failures.set(mark, decoration);
    }
  }

  /** Scrolls to the prompt above what is shown, or below it; past the last one to the end. */
  jump(back: boolean): void {
    const top = this.term.buffer.active.viewportY;
    const lines = this.marks.map((mark) => mark.line).filter((line) => line >= 0);
    const line = back ? lines.filter((at) => at < top).at(-1) : lines.find((at) => at > top);
    if (line !== undefined) {
      this.term.scrollToLine(line);
    } else if (!back) {
      this.term.scrollToBottom();
    }
  }
}
