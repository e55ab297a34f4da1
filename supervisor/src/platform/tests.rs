//! The client against the reference backend, with a real journal and without the rest of the host.

use std::time::Duration;

use serde_json::json;
use whim_kit::Backend;
use whim_kit::backend::{Books, Call as Told, Trouble as Fault};
use whim_wire::state::Supervisor;

use super::*;
use crate::journal::{Journal, Limits};

const PATIENCE: Duration = Duration::from_secs(60);

/// A host of which only the events are there.
struct Host {
    board: Arc<Board>,
    link: Arc<Link>,
    record: Option<Record>,
    stop: CancellationToken,
    _state: tempfile::TempDir,
}

impl Host {
    fn new(backend: &Backend, limits: Limits) -> Self {
        let state = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&state.path().join("journal"), limits).unwrap();
        let record = Record::open(state.path(), journal.appended()).unwrap();
        let board = Arc::new(Board::new(journal, Supervisor::default(), None));
        let dialer = crate::outbound::dialer(&Variables::default(), CONNECT).unwrap();
        let token = Secret::new("token".into());
        let client = Client::new(&backend.url(), "t-1", token, dialer).unwrap();
        let stop = CancellationToken::new();
        let link = Arc::new(Link::new(client, board.clone(), 0, stop.clone()));
        Self {
            board,
            link,
            record: Some(record),
            stop,
            _state: state,
        }
    }

    /// As many events, on disk.
    async fn happen(&self, count: usize, filling: usize) {
        for number in 0..count {
            self.board.note(
                "test.happened",
                json!({"number": number, "filling": "f".repeat(filling)}),
            );
            if number % 1000 == 999 {
                self.board.journal().flush(PATIENCE).await.unwrap();
            }
        }
        self.board.journal().flush(PATIENCE).await.unwrap();
    }

    fn deliver(&mut self) {
        let journal = self.board.journal().clone();
        let record = self.record.take().unwrap();
        drop(tokio::spawn(events::deliver(
            self.link.clone(),
            journal,
            record,
        )));
    }

    /// Waits until everything of the journal has reached the platform.
    fn all_told(&self, backend: &Backend) -> whim_kit::backend::Stream {
        let journal = self.board.journal();
        let told =
            |books: &Books| (books.stream().acknowledged >= journal.position()).then_some(());
        backend.wait_for("all events", PATIENCE, told).unwrap();
        backend.look(Books::stream)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_during_an_outage_is_told_in_bounded_batches() {
    let backend = Backend::start("t-1", "token").unwrap();
    backend.leave();
    let mut host = Host::new(&backend, Limits::default());
    host.deliver();
    host.happen(3000, 400).await;
    backend.come_back().unwrap();
    let stream = host.all_told(&backend);
    assert!(stream.acknowledged >= 3000);
    assert_eq!(stream.events.len() as u64, stream.acknowledged);
    assert_eq!(stream.missing, []);
    // Bounds are the document's, which the backend checks; here only that there was more than one batch.
    assert!(backend.look(|books| books.of(Told::Events).len()) > 10);
    assert_eq!(backend.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_journal_had_to_let_go_is_named_and_counted() {
    let backend = Backend::start("t-1", "token").unwrap();
    backend.leave();
    let limits = Limits {
        segment_bytes: 64 * 1024,
        segments: 2,
    };
    let mut host = Host::new(&backend, limits);
    host.happen(3000, 400).await;
    host.deliver();
    backend.come_back().unwrap();
    let stream = host.all_told(&backend);
    let (first, last) = stream.missing[0];
    assert_eq!(first, 1);
    assert!(last > 1000, "{last}");
    assert_eq!(stream.events.keys().next(), Some(&(last + 1)));
    let lost = || host.board.object().backend.unwrap().lost_events;
    let seen = tokio::time::timeout(PATIENCE, async {
        while lost() != last {
            tokio::task::yield_now().await;
        }
    });
    seen.await.unwrap();
    assert_eq!(backend.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_too_large_is_halved() {
    let backend = Backend::start("t-1", "token").unwrap();
    backend.trouble(Told::Events, Fault::Status(413), 2);
    let mut host = Host::new(&backend, Limits::default());
    host.happen(200, 10).await;
    host.deliver();
    let stream = host.all_told(&backend);
    assert_eq!(stream.events.len() as u64, stream.acknowledged);
    let sizes: Vec<usize> = backend.look(|books| {
        let events = books.of(Told::Events).into_iter();
        let size = |call: &whim_kit::backend::Taken| call.body["events"].as_array().unwrap().len();
        events.map(size).collect()
    });
    assert_eq!(
        (sizes[1], sizes[2]),
        (sizes[0] / 2, sizes[0] / 4),
        "{sizes:?}"
    );
    assert_eq!(backend.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_waits_for_what_is_owed_and_not_for_a_platform_that_is_away() {
    for away in [false, true] {
        let backend = Backend::start("t-1", "token").unwrap();
        let mut host = Host::new(&backend, Limits::default());
        host.happen(1000, 10).await;
        if away {
            backend.leave();
        }
        let journal = host.board.journal().clone();
        let record = host.record.take().unwrap();
        host.link.hurry().cancel();
        let delivered = events::deliver(host.link.clone(), journal, record);
        tokio::time::timeout(PATIENCE, delivered).await.unwrap();
        let acknowledged = backend.look(Books::stream).acknowledged;
        assert_eq!(acknowledged >= 1000, !away, "{acknowledged}");
    }
}
