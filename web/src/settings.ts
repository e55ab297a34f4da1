// What a person chose on this device: theme, font size, screen reader mode.

export type ThemeChoice = 'system' | 'light' | 'dark' | 'dracula';

export interface Settings {
  theme: ThemeChoice;
  fontSize: number;
  screenReader: boolean;
  notify: boolean;
}

const KEY = 'whim.settings';
const FALLBACK: Settings = { theme: 'system', fontSize: 14, screenReader: false, notify: false };

export const FONT_SIZES = { least: 8, most: 28 };

export function load(): Settings {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<Settings>;
    return { ...FALLBACK, ...stored };
  } catch {
    // Storage may be blocked or hold nonsense.
    return { ...FALLBACK };
  }
}

export function save(settings: Settings): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // The choice then lasts as long as the page.
  }
}
