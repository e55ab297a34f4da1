//! A thread with a runtime, for fixtures that serve or call while a test does what it likes.
//!
//! A test may be synchronous, or run on a runtime of one thread that it blocks: fixtures must answer all the same, so
//! they never run on the test's own runtime. Dropping ends every task of the thread and waits for it.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread.
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Either a word or the sender's end: both mean stop.
                runtime.block_on(async { stopped.await.unwrap_or(()) });
            })?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `task` there and waits here; `None` if the thread has ended.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, result) = mpsc::sync_channel(1);
        drop(self.handle.spawn(async move {
            // The receiver waits below for exactly this; it cannot be gone.
            drop(done.send(task.await));
        }));
        result.recv().ok()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; here it is only over.
            drop(thread.join());
        }
    }
}
