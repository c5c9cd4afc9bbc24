//! Services that take their time: how long a call lasts, and whom it holds up.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use cutover::service::{Call, HttpService, Proxy, Service, ServiceError};
use cutover::{Beat, Called, Completion, ErrorKind, Heartbeats};
use parking_lot::Mutex;

use super::{SLACK, Server, answers, ask, is_refused, open, stage, until};
use crate::common::{LONG, PATIENT};

/// Says when it was called, and answers when it may.
struct Slow(Mutex<(Sender<()>, Receiver<()>)>);

impl Slow {
    /// The service, who hears of a call to it, and who lets it answer.
    fn new() -> (Arc<Self>, Receiver<()>, Sender<()>) {
        let ((called, hears), (may, answers)) = (channel(), channel());
        (Arc::new(Self(Mutex::new((called, answers)))), hears, may)
    }
}

impl Service for Slow {
    fn call(&self, _: &Call<'_>) -> Result<Vec<u8>, ServiceError> {
        let (called, answers) = &*self.0.lock();
        called.send(()).ok();
        answers.recv_timeout(LONG).ok();
        Ok(Vec::new())
    }
}

/// Never answers before it may.
#[derive(Default)]
struct Hanging {
    under_way: AtomicUsize,
    may_answer: Mutex<()>,
}

impl Service for Hanging {
    fn call(&self, _: &Call<'_>) -> Result<Vec<u8>, ServiceError> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        drop(self.may_answer.lock());
        Ok(Vec::new())
    }
}

/// One that is found by name, too.
#[test]
fn a_service_that_hangs_holds_up_no_other_service() {
    let hanging = Arc::new(Hanging::default());
    let server = Server::start(|_| (200, Vec::new()));
    let (_, port) = server.address.split_once(':').unwrap();
    let bank = HttpService::new(&format!("http://localhost:{port}")).unwrap();
    let stage =
        stage(PATIENT, |builder| builder.service("hanging", hanging.clone()).http_service("bank", bank));
    let steps: Vec<_> = (0..5).map(|step| stage.work(&step.to_string())).collect();
    let ports: Vec<_> = steps.iter().map(|(worker, task)| open(worker, task, &["hanging"])).collect();
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail", "bank"]);
    let held = hanging.may_answer.lock();
    thread::scope(|scope| {
        let asks = |port: &Proxy| ask(port.url(), "POST", "/hanging", "", b"").unwrap().status();
        // As many as a port lets in.
        let asking: Vec<_> =
            ports.iter().cycle().take(5 * 16).map(|port| scope.spawn(move || asks(port))).collect();
        until("calls hang", || hanging.under_way.load(Ordering::SeqCst) >= 16);
        thread::sleep(Duration::from_millis(200));
        assert!(answers(proxy.url()));
        assert_eq!(ask(proxy.url(), "GET", "/bank", "", b"").unwrap().status(), 200);
        drop(held);
        assert!(asking.into_iter().all(|answer| answer.join().unwrap() == 200));
    });
    assert_eq!(hanging.under_way.load(Ordering::SeqCst), 5 * 16);
}

#[test]
fn a_slow_service_holds_up_no_other_step_and_no_end_of_a_port() {
    let (slow, called, may) = Slow::new();
    let stage = stage(PATIENT, |builder| builder.service("slow", slow));
    let (worker, task) = stage.work("k");
    let (other, its) = stage.work("l");
    let (proxy, quick) = (open(&worker, &task, &["slow"]), open(&other, &its, &["mail"]));
    let (url, port) = (proxy.url().to_owned(), proxy.port());
    let asking = thread::spawn(move || ask(&url, "POST", "/slow", "", b""));
    called.recv_timeout(LONG).unwrap();
    assert!(answers(quick.url()));
    worker.complete(&task, Completion::default()).unwrap();
    until("the step is settled", || !proxy.is_open());
    assert!(is_refused(port));
    assert!(asking.join().unwrap().is_err(), "what was under way is cut off");
    // A call to a service in this process cannot be cut off: closing waits, and says for what.
    let err = stage.engine.close(Duration::from_millis(50)).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::TimedOut);
    assert!(err.to_string().contains("cutover-ports"), "{err}");
    assert!(is_refused(quick.port()), "it takes no more calls all the same");
    may.send(()).unwrap();
}

/// A bank that takes the call and says nothing.
#[test]
fn a_call_over_http_ends_with_the_lease() {
    const LEASE: Duration = Duration::from_millis(300);
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let bank = HttpService::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let heartbeats = Heartbeats { every: LEASE, intervals: 1 };
    let stage = stage(heartbeats, |builder| builder.http_service("bank", bank));
    let (worker, task) = stage.work("k");
    let begun = Instant::now();
    let err = worker.call(&task, "bank", b"hunter2").unwrap_err();
    assert!(begun.elapsed() < LEASE + SLACK);
    assert_eq!(err.kind(), ErrorKind::TimedOut);
    assert!(err.to_string().contains("\"bank\""), "{err}");

    worker.register_anew().unwrap();
    let task = worker.claim("default", LONG).unwrap().unwrap();
    let proxy = open(&worker, &task, &["bank"]);
    let answer = ask(proxy.url(), "GET", "/bank", "", b"");
    assert!(answer.is_err() || answer.is_ok_and(|answer| [410, 504].contains(&answer.status())));
    until("the lease has ended", || is_refused(proxy.port()));
}

/// The end of the lease as it was when the call began is not the end of the call.
#[test]
fn a_call_over_http_lasts_as_long_as_the_lease_is_renewed() {
    const LEASE: Duration = Duration::from_secs(1);
    let server = Server::start(|_| {
        thread::sleep(2 * LEASE);
        (200, b"paid".to_vec())
    });
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let lost = HttpService::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let bank = server.service("");
    let heartbeats = Heartbeats { every: LEASE, intervals: 1 };
    let stage = stage(heartbeats, |builder| builder.http_service("bank", bank).http_service("lost", lost));
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["bank"]);
    thread::scope(|scope| {
        let through_gate = scope.spawn(|| worker.call(&task, "bank", b"pay"));
        // The bank has it wait for the other one.
        let through_port = scope.spawn(|| ask(proxy.url(), "POST", "/bank", "", b"pay"));
        let in_vain = scope.spawn(|| (worker.call(&task, "lost", b"pay"), Instant::now()));
        while !(through_gate.is_finished() && through_port.is_finished()) {
            assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Renewed);
            thread::sleep(LEASE / 20);
        }
        let paid = Called::Answered { answer: b"paid".to_vec(), lost: None };
        assert_eq!(through_gate.join().unwrap().unwrap(), paid);
        assert_eq!(through_port.join().unwrap().unwrap().text(), "paid");
        assert!(!in_vain.is_finished());
        let renewed = Instant::now();
        assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Renewed);
        let (called, at) = in_vain.join().unwrap();
        assert_eq!(called.unwrap_err().kind(), ErrorKind::TimedOut);
        let lasted = at.duration_since(renewed);
        assert!(lasted >= LEASE && lasted < LEASE + SLACK, "{lasted:?}");
    });
}
