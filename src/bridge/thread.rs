//! A thread with a runtime of its own, for one part of the bridge.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub struct ServiceThread {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ServiceThread {
    pub fn start(
        name: String,
        service: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<ServiceThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = service => {}
                    _ = stopped => {}
                }
            });
            // Name look-ups that are still under way are not waited for.
            runtime.shutdown_background();
        })?;
        Ok(ServiceThread { stop, thread })
    }

    /// Stops the service at once, and waits for the thread.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}
