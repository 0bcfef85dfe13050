//! How many requests are in flight: as many as the server answers without complaint.
//!
//! The rule is TCP's (RFC 5681): the window doubles with every round of answers until the first complaint,
//! then grows by one a round; a complaint halves it. Complaints of requests that were sent before the last
//! halving are about the old window and do not count again.

/// The window; starts at `start` and stays in `1..=max`.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    size: f64,
    max: f64,
    /// Below this the window doubles a round; above it grows by one.
    threshold: f64,
    epoch: u64,
}

impl Window {
    pub(crate) fn new(start: u32, max: u32) -> Window {
        let max = f64::from(max.max(1));
        Window { size: f64::from(start).clamp(1.0, max), max, threshold: max, epoch: 0 }
    }

    /// Requests that may be in flight.
    pub(crate) fn size(&self) -> usize {
        self.size as usize
    }

    /// Goes with every request, and back to [`Window::complaint`].
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A request was answered while the window was full. A window that is not full says nothing about the
    /// server.
    pub(crate) fn answer(&mut self) {
        self.size += if self.size < self.threshold { 1.0 } else { 1.0 / self.size };
        self.size = self.size.min(self.max);
    }

    /// The answer to a request of `epoch` says that the server is overloaded.
    pub(crate) fn complaint(&mut self, epoch: u64) {
        if epoch == self.epoch {
            self.size = (self.size / 2.0).max(1.0);
            self.threshold = self.size;
            self.epoch += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(window: &mut Window) {
        (0..window.size()).for_each(|_| window.answer());
    }

    #[test]
    fn doubles_then_halves_then_grows_by_one() {
        let mut window = Window::new(4, 100);
        round(&mut window);
        assert_eq!(window.size(), 8);
        round(&mut window);
        assert_eq!(window.size(), 16);
        let epoch = window.epoch();
        window.complaint(epoch);
        window.complaint(epoch);
        assert_eq!(window.size(), 8);
        for _ in 0..3 {
            // 1/8 + 1/8.125 + ... over a round is a little less than one.
            round(&mut window);
            window.answer();
        }
        assert_eq!(window.size(), 11);
    }

    #[test]
    fn stays_between_one_and_the_maximum() {
        let mut window = Window::new(0, 3);
        assert_eq!(window.size(), 1);
        (0..100).for_each(|_| window.answer());
        assert_eq!(window.size(), 3);
        (0..10).for_each(|_| window.complaint(window.epoch()));
        assert_eq!(window.size(), 1);
    }
}
