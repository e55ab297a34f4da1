import { defineConfig } from 'vite';

export default defineConfig({
  // Relative addresses: the page is served at `/` and at `/t/{id}/`.
  base: './',
  build: {
    outDir: 'dist',
    target: 'es2022',
    // The policy allows no inline code; small files stay files.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
});
