// Colours of the terminal for each theme; the page's own are in style.css under the same names.

import type { ITheme } from '@xterm/xterm';
import type { ThemeChoice } from './settings';

export type ThemeName = 'light' | 'dark' | 'dracula';

const THEMES: Record<ThemeName, ITheme> = {
  dark: {
    background: '#16181d', foreground: '#d6dae3', cursor: '#d6dae3', cursorAccent: '#16181d',
    selectionBackground: '#3b4252aa', black: '#2b303b', red: '#e06c75', green: '#98c379', yellow: '#e5c07b',
    blue: '#6cb0f5', magenta: '#c68aee', cyan: '#5fc1cc', white: '#c8ccd4', brightBlack: '#7a8292',
    brightRed: '#f0868e', brightGreen: '#b1d798', brightYellow: '#f1d49a', brightBlue: '#8fc5fa',
    brightMagenta: '#d9a9f5', brightCyan: '#84d5de', brightWhite: '#f2f4f8',
  },
  light: {
    background: '#fdfdfc', foreground: '#2b2f36', cursor: '#2b2f36', cursorAccent: '#fdfdfc',
    selectionBackground: '#b7cdf3aa', black: '#2b2f36', red: '#b5243a', green: '#2d7336', yellow: '#8a6100',
    blue: '#1e5fb3', magenta: '#8f38a8', cyan: '#13707d', white: '#6b717c', brightBlack: '#5d636e',
    brightRed: '#c9374b', brightGreen: '#3a8544', brightYellow: '#9b7010', brightBlue: '#2f72c9',
    brightMagenta: '#a24cbb', brightCyan: '#1f828f', brightWhite: '#3c414a',
  },
  dracula: {
    background: '#282a36', foreground: '#f8f8f2', cursor: '#f8f8f2', cursorAccent: '#282a36',
    selectionBackground: '#44475acc', black: '#21222c', red: '#ff5555', green: '#50fa7b', yellow: '#f1fa8c',
    blue: '#bd93f9', magenta: '#ff79c6', cyan: '#8be9fd', white: '#f8f8f2', brightBlack: '#6272a4',
    brightRed: '#ff6e6e', brightGreen: '#69ff94', brightYellow: '#ffffa5', brightBlue: '#d6acff',
    brightMagenta: '#ff92df', brightCyan: '#a4ffff', brightWhite: '#ffffff',
  },
};

const dark = window.matchMedia('(prefers-color-scheme: dark)');

export function resolve(choice: ThemeChoice): ThemeName {
  if (choice !== 'system') {
    return choice;
  }
  return dark.matches ? 'dark' : 'light';
}

/** Puts the theme on the page and returns the terminal's colours. */
export function apply(choice: ThemeChoice): ITheme {
  const name = resolve(choice);
  document.documentElement.dataset['theme'] = name;
  return THEMES[name];
}

export function onSystemChange(listener: () => void): void {
  dark.addEventListener('change', listener);
}
