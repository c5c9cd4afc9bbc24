use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::status::Register;
use cutover_formats::{Status, StoreId};

const A: TenantId = TenantId(1);
const B: TenantId = TenantId(2);
const LONG: Duration = Duration::from_secs(60);

/// Only one of these two makes the call below ambiguous: `Pin` must not be `Send`.
trait NotSend<Marker> {
    fn check() {}
}
impl<T> NotSend<()> for T {}
struct Never;
impl<T: Send> NotSend<Never> for T {}

#[test]
fn a_pin_stays_in_its_thread_and_a_wait_may_travel() {
    fn travels<T: Send>() {}
    <Pin<'_> as NotSend<_>>::check();
    travels::<Wait>();
    travels::<Pins>();
}

#[test]
fn with_no_pins_a_wait_is_over_at_once() {
    let pins = Pins::new();
    assert_eq!(pins.begin_wait(A).poll(), Waiting::Done);
    drop(pins.pin(A, "launch"));
    assert_eq!(pins.begin_wait(A).wait(Duration::ZERO), Ok(()));
}

/// Runs `inside` while another thread, of this name, holds a pin of `tenant`.
fn while_pinned(pins: &Pins, tenant: TenantId, name: &str, inside: impl FnOnce()) {
    thread::scope(|scope| {
        let (pinned, is_pinned) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let holder = move || {
            let _pin = pins.pin(tenant, "launch");
            pinned.send(()).unwrap();
            let _ = released.recv();
        };
        let holder = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, holder).unwrap();
        is_pinned.recv().unwrap();
        inside();
        drop(release);
        holder.join().unwrap();
    });
}

#[test]
fn a_wait_says_who_holds_it_up_and_ends_when_they_let_go() {
    let pins = Pins::new();
    // Since the engine started: holders count from there, in milliseconds.
    thread::sleep(Duration::from_millis(5));
    let begun = Instant::now() - Duration::from_millis(1);
    let mut wait = None;
    while_pinned(&pins, A, "launcher 7", || {
        let wait = wait.insert(pins.begin_wait(A));
        let Waiting::On(holders) = wait.poll() else { panic!("the pin was not seen") };
        assert_eq!(wait.wait(Duration::from_millis(1)), Err(holders.clone()));
        let [holder] = &holders[..] else { panic!("one pin, and {holders:?}") };
        assert_eq!((holder.thread.as_str(), holder.operation), ("launcher 7", "launch"));
        assert!(holder.since >= begun && holder.since <= Instant::now());
        assert!(holder.to_string().starts_with("thread launcher 7 (launch, for "), "{holder}");
    });
    assert_eq!(wait.unwrap().poll(), Waiting::Done);
}

#[test]
fn a_wait_is_not_held_up_by_another_tenant_or_another_engine() {
    let (pins, others) = (Pins::new(), Pins::new());
    while_pinned(&pins, A, "launcher", || {
        assert_eq!(pins.begin_wait(B).poll(), Waiting::Done);
        assert_eq!(others.begin_wait(A).poll(), Waiting::Done);
        assert!(matches!(pins.begin_wait(A).poll(), Waiting::On(_)));
    });
}

#[test]
fn a_wait_is_not_held_up_by_pins_taken_after_it() {
    let pins = Pins::new();
    let mut wait = None;
    while_pinned(&pins, A, "first", || wait = Some(pins.begin_wait(A)));
    // The slot of the first thread is used again here, so a wait that looked only at odd or even would hang.
    while_pinned(&pins, A, "second", || {
        assert_eq!(pins.slots.len(), 1);
        assert_eq!(wait.take().unwrap().wait(LONG), Ok(()));
    });
}

#[test]
fn a_blocking_wait_returns_once_the_pin_is_gone_and_sees_what_was_done_under_it() {
    let pins = Pins::new();
    let done = AtomicBool::new(false);
    let (pinned, is_pinned) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let (pins, done) = (&pins, &done);
        scope.spawn(move || {
            let _pin = pins.pin(A, "launch");
            pinned.send(()).unwrap();
            gone.recv().unwrap();
            done.store(true, Ordering::Relaxed);
        });
        is_pinned.recv().unwrap();
        let mut wait = pins.begin_wait(A);
        go.send(()).unwrap();
        assert_eq!(wait.wait(LONG), Ok(()));
        assert!(done.load(Ordering::Relaxed));
    });
}

#[test]
fn a_pin_inside_a_pin_is_a_pin_of_its_own() {
    let pins = Pins::new();
    let on = |tenant| match thread::scope(|scope| scope.spawn(|| pins.begin_wait(tenant).poll()).join())
        .unwrap()
    {
        Waiting::Done => Vec::new(),
        Waiting::On(holders) => holders.iter().map(|holder| holder.operation).collect(),
    };
    let outer = pins.pin(A, "outer");
    let inner = pins.pin(A, "inner");
    let other = pins.pin(B, "other");
    assert_eq!((on(A), on(B)), (vec!["outer", "inner"], vec!["other"]));
    // Out of order, as guards may be.
    drop(outer);
    assert_eq!((on(A), on(B)), (vec!["inner"], vec!["other"]));
    let again = pins.pin(B, "again");
    assert_eq!((on(A), on(B)), (vec!["inner"], vec!["again", "other"]));
    drop((inner, other, again));
    assert_eq!((on(A), on(B)), (vec![], vec![]));
    assert_eq!(pins.slots.len(), 3);
}

#[test]
fn a_panic_unpins() {
    let pins = Pins::new();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _pin = pins.pin(A, "launch");
        std::panic::resume_unwind(Box::new("a launch that panics"));
    }));
    assert!(caught.is_err());
    assert_eq!(pins.begin_wait(A).poll(), Waiting::Done);
}

fn panic_of(call: impl FnOnce()) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_err();
    caught.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn to_wait_for_ones_own_pin_is_a_bug_and_says_so() {
    let pins = Pins::new();
    let pin = pins.pin(A, "launch");
    // Whatever else this thread pins after it.
    drop(Pins::new().pin(A, "launch"));
    let said = panic_of(|| drop(pins.begin_wait(A)));
    assert_eq!(said, "this thread waits for the pins of tenant 1 while it holds one itself");
    assert_eq!(pins.begin_wait(B).poll(), Waiting::Done);
    // A wait that another thread began for it.
    let mut wait = thread::scope(|scope| scope.spawn(|| pins.begin_wait(A)).join()).unwrap();
    assert_eq!(panic_of(|| drop(wait.wait(LONG))), said);
    drop(pin);
    assert_eq!(wait.poll(), Waiting::Done);
}

#[test]
fn slots_of_threads_that_ended_are_used_again() {
    let threads = if cfg!(miri) { 20 } else { 1_000 };
    let pins = Arc::new(Pins::new());
    for _ in 0..threads {
        let pins = Arc::clone(&pins);
        // Not a scoped thread: a scope may end before the thread has given back what it keeps.
        thread::spawn(move || drop((pins.pin(A, "launch"), pins.pin(A, "launch")))).join().unwrap();
    }
    assert_eq!(pins.slots.len(), 2);
    assert_eq!(pins.begin_wait(A).poll(), Waiting::Done);
}

#[test]
fn a_thread_forgets_engines_that_are_gone() {
    thread::spawn(|| {
        for _ in 0..100 {
            let pins = Pins::new();
            drop(pins.pin(A, "launch"));
        }
        assert!(MINE.with_borrow(Vec::len) <= 2);
    })
    .join()
    .unwrap();
}

#[test]
fn a_pin_in_a_thread_that_is_ending_works_and_gives_its_slot_back() {
    struct AtTheEnd(Arc<Pins>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let _pin = self.0.pin(A, "at the end");
            let pins = Arc::clone(&self.0);
            let seen = thread::spawn(move || pins.begin_wait(A).poll()).join().unwrap();
            assert!(
                matches!(&seen, Waiting::On(holders) if holders[0].operation == "at the end"),
                "{seen:?}"
            );
            SEEN.store(true, Ordering::Relaxed);
        }
    }
    static SEEN: AtomicBool = AtomicBool::new(false);
    thread_local!(static LAST: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) });

    let pins = Arc::new(Pins::new());
    let theirs = Arc::clone(&pins);
    // `LAST` is used first and so dropped last, or the other way round: either works.
    thread::spawn(move || {
        LAST.set(Some(AtTheEnd(Arc::clone(&theirs))));
        drop(theirs.pin(A, "launch"));
    })
    .join()
    .unwrap();
    assert!(SEEN.load(Ordering::Relaxed));
    assert_eq!(pins.begin_wait(A).poll(), Waiting::Done);
    let free = pins.slots.len();
    thread::spawn({
        let pins = Arc::clone(&pins);
        move || drop(pins.pin(A, "launch"))
    })
    .join()
    .unwrap();
    assert_eq!(pins.slots.len(), free);
}

#[test]
fn details_come_back_whole() {
    for details in [
        Details { operation: 0, since_ms: 0 },
        Details { operation: OTHER, since_ms: (1 << 48) - 1 },
        Details { operation: 3, since_ms: 1 },
    ] {
        assert_eq!(Details::unpack(details.pack()), details);
    }
    assert_eq!(name_of(number_of("claim")), "claim");
    assert_ne!(number_of("claim"), number_of("launch"));
    assert_eq!(name_of(OTHER), "another operation");
}

/// The promise as a whole, on the real machine: what lands under a status lands before the wait for it is over.
#[test]
fn nothing_lands_under_a_status_after_the_wait_for_it() {
    let rounds = if cfg!(miri) { 15 } else { 5_000 };
    let (pins, register) = (Pins::new(), Register::new(Status::stable(1, StoreId(1))));
    // The highest epoch that may not land any more, and how often one did.
    let (over, late, landed) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _pin = pins.pin(A, "launch");
                    let (seq, status) = register.read();
                    if register.unchanged(seq) {
                        landed.fetch_add(1, Ordering::Relaxed);
                        if over.load(Ordering::SeqCst) >= status.epoch {
                            late.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        // On a busy machine all rounds could be over before the first of them is at work.
        while landed.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        for epoch in 1..=rounds {
            register.publish(Status::stable(epoch + 1, StoreId(1)));
            assert_eq!(pins.begin_wait(A).wait(LONG), Ok(()));
            over.store(epoch, Ordering::SeqCst);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(late.into_inner(), 0);
}
