// Where the preview of a server in the container can be seen from this browser.

import type { PreviewLink } from './api';

/** Names under which a browser reaches its own machine; those below localhost by RFC 6761 §6.3. */
const OWN_MACHINE = /^(?:.*\.)?localhost$|^127\.\d+\.\d+\.\d+$|^\[::1\]$/;

/**
 * The address of `path` on the server that a link is for. Previews without addresses of their own are on the local
 * proxy's port of the machine that this page came from: under a host name for each port where that machine is the
 * browser's own, else under a path.
 */
export function previewAddress(link: PreviewLink, path: string, page: URL | Location): string {
  const local = link.local_url ? new URL(link.local_url) : null;
  let base = new URL(link.url, page.href);
  if (local) {
    base = OWN_MACHINE.test(page.hostname) ? local : new URL(link.url, `${page.protocol}//${page.hostname}:${local.port}`);
  }
  // Relative whatever it looks like: the link's credential goes to no other host.
  const address = new URL(`./${path.replace(/^\/+/, '')}`, base);
  address.search = [address.search, base.search].map((query) => query.slice(1)).filter(Boolean).join('&');
  return address.href;
}
