use super::*;

#[test]
fn a_reader_that_meets_a_writer_waits_for_it() {
    let lock = SeqLock::<2>::new([1, 2]);
    lock.seq.store(1, Ordering::SeqCst);
    assert!(lock.try_read().is_none());
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| lock.read());
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!reading.is_finished());
        lock.seq.store(2, Ordering::SeqCst);
        assert_eq!(reading.join().expect("it does not panic").1, [1, 2]);
    });
}
