//! Room in a snapshot: a manifest names at most [`MAX_FILES`] files and [`MAX_PIECES`] pieces, and one with more is taken by
//! no reader. Before a backup fails for good, it gives up what is least: first what is left of files that are gone, the
//! longest gone first, then files that were never saved.

use super::*;

/// Kept free for damaged copies, which come beside files that are known.
const SPARE: usize = MAX_FILES / 50;

/// How many files that are not known yet have room, when those that are gone make way.
pub(super) fn for_new(index: &Index, gone: &[Key]) -> usize {
    let gone = gone.iter().filter_map(|key| index.files.get(key));
    let kept = files(index).saturating_sub(gone.map(weight).map(|(files, _)| files).sum());
    (MAX_FILES - SPARE).saturating_sub(kept)
}

/// Takes entries of files that are gone out of the index until it fits; how many.
pub(super) fn make(index: &mut Index, gone: &[Key], max_files: usize, max_pieces: usize) -> usize {
    let mut files = files(index);
    let mut pieces: usize = index.files.values().map(|entry| weight(entry).1).sum();
    if files <= max_files && pieces <= max_pieces {
        return 0;
    }
    let age = |key: &&Key| {
        let seen = index.files.get(*key).and_then(|entry| entry.live().seen);
        seen.map(|seen| seen.modified)
    };
    let mut oldest: Vec<&Key> = gone.iter().collect();
    // None first: they were gone before this container was.
    oldest.sort_by_key(age);
    let mut removed = 0;
    for key in oldest {
        if files <= max_files && pieces <= max_pieces {
            break;
        }
        if let Some(entry) = index.files.remove(key) {
            let (its_files, its_pieces) = weight(&entry);
            files -= its_files;
            pieces -= its_pieces;
            removed += 1;
        }
    }
    removed
}

fn files(index: &Index) -> usize {
    index.files.values().map(|entry| weight(entry).0).sum()
}

/// Files and pieces of an entry in a manifest.
fn weight(entry: &Entry) -> (usize, usize) {
    let copies = std::iter::once(&entry.good).chain(&entry.damaged);
    copies.fold((0, 0), |(files, pieces), copy| {
        (files + 1, pieces + copy.pieces.len())
    })
}
