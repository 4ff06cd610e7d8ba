//! When to heal what breaks: as soon as it is seen, but patiently if that did not help.
//!
//! Knows nothing of sockets: it is given how to wait for the damage and what to do about it. DESIGN section 11: an idle
//! daemon sleeps, so nothing here looks by the clock while all is well.

use tokio::time::sleep;

use crate::limits::HEAL_PAUSE;

/// Heals each time something is broken, with a pause after every try. Never ends.
///
/// `broken` completes at once while the damage lasts.
pub(crate) async fn whenever<B, H>(broken: impl Fn() -> B, heal: impl Fn() -> H)
where
    B: Future<Output = ()>,
    H: Future<Output = ()>,
{
    loop {
        broken().await;
        heal().await;
        sleep(HEAL_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::{sync::Semaphore, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn damage_is_healed_at_once_and_again_only_after_a_pause() {
        let damage = Arc::new(Semaphore::new(0));
        let tries = Arc::new(AtomicUsize::new(0));
        let healer = tokio::spawn({
            let (damage, tries) = (damage.clone(), tries.clone());
            async move {
                whenever(
                    || async { damage.acquire().await.unwrap().forget() },
                    || async {
                        tries.fetch_add(1, Ordering::Relaxed);
                    },
                )
                .await;
            }
        });
        let tried = || tries.load(Ordering::Relaxed);
        sleep(HEAL_PAUSE * 100).await;
        assert_eq!(tried(), 0, "nothing is done while all is well");
        let broken_at = Instant::now();
        damage.add_permits(3);
        tokio::task::yield_now().await;
        assert_eq!((tried(), broken_at.elapsed().as_millis()), (1, 0));
        sleep(HEAL_PAUSE / 2).await;
        assert_eq!(tried(), 1);
        sleep(HEAL_PAUSE * 100).await;
        assert_eq!(tried(), 3);
        healer.abort();
    }
}
