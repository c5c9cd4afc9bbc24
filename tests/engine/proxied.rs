//! Ports for steps that run as child processes: what goes through them, who is kept out, and when they are gone.
//!
//! Service, child and clients speak HTTP by hand over sockets of the standard library, so that nothing here knows what the engine uses.

mod slow;

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cutover::clock::ManualClock;
use cutover::formats::limits::MAX_PAYLOAD;
use cutover::service::signature::{RequestDigest, Signed, SigningKey, verify};
use cutover::service::{Call, HttpService, Proxy, Service, ServiceError};
use cutover::{
    Beat, Builder, Called, Completion, Ended, Engine, ErrorKind, Gate, Heartbeats, NewStep, Proxied, Refusal,
    Task, Tenant,
};

use crate::common::{Home, KEEP, LONG, PATIENT, keyed, many, memory, started, tenant, with_step};

/// Tells the child where its port is.
const VARIABLE: &str = "CUTOVER_TEST_PORT";
const KEY: [u8; 32] = [7; 32];
const CREDENTIALS: &str = "Bearer hunter2-of-the-service";
/// A port may take that long to go, on a machine that does much else.
const SLACK: Duration = Duration::from_secs(5);

// HTTP by hand.

#[derive(Debug, Clone, Default)]
struct Message {
    /// The request line, or the status line.
    first: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let mut line = || {
            let mut line = String::new();
            match from.read_line(&mut line)? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(line.trim_end().to_owned()),
            }
        };
        let mut message = Self { first: line()?, ..Self::default() };
        loop {
            let header = line()?;
            let Some((name, value)) = header.split_once(": ") else { break };
            message.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let length = message.header("content-length").map_or(0, |length| length.parse().unwrap());
        message.body = vec![0; length];
        from.read_exact(&mut message.body)?;
        Ok(message)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice");
        value
    }

    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Sends a request to a port and waits for the answer. `path` comes after the port's URL.
fn ask(url: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Message> {
    ask_on(&connect(url)?, url, method, path, headers, body)
}

fn connect(url: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(url.strip_prefix("http://").unwrap().split('/').next().unwrap())?;
    stream.set_read_timeout(Some(LONG))?;
    Ok(stream)
}

/// The same on a connection that is there, and stays.
fn ask_on(
    mut stream: &TcpStream,
    url: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> io::Result<Message> {
    let (address, secret) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let length = body.len();
    let head =
        format!("{method} /{secret}{path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n");
    stream.write_all(format!("{head}{headers}\r\n").as_bytes())?;
    // One that is refused for its head is answered before its body was sent.
    drop(stream.write_all(body));
    Message::read(&mut BufReader::new(stream))
}

/// A service over HTTP. Each request is handed to `answer`, which says status and body.
struct Server {
    address: String,
    requests: Receiver<Message>,
}

impl Server {
    fn start(answer: impl Fn(&Message) -> (u16, Vec<u8>) + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, requests) = channel();
        // Ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Ok(request) = Message::read(&mut BufReader::new(&stream)) else { continue };
                sender.send(request.clone()).ok();
                let (status, body) = answer(&request);
                let head = format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n", body.len());
                let more = "Connection: close, x-hop\r\nX-Hop: 1\r\nX-Kept: 2\r\n\r\n";
                drop(stream.write_all(format!("{head}{more}").as_bytes()));
                drop(stream.write_all(&body));
            }
        });
        Self { address, requests }
    }

    fn service(&self, path: &str) -> HttpService {
        let service = HttpService::new(&format!("http://{}{path}", self.address)).unwrap();
        service.header("Authorization", CREDENTIALS).unwrap()
    }

    fn next(&self) -> Message {
        self.requests.recv_timeout(LONG).unwrap()
    }
}

// The engine's side.

struct Echo;

impl Service for Echo {
    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, ServiceError> {
        match call.request {
            b"fail" => Err(ServiceError::new("no such mailbox")),
            request => Ok([b"echo ", request].concat()),
        }
    }
}

struct Stage {
    engine: Engine,
    tenant: Tenant,
    _home: Home,
}

fn stage(heartbeats: Heartbeats, with: impl FnOnce(Builder) -> Builder) -> Stage {
    let home = Home::new();
    let builder = home.builder().heartbeats(heartbeats).signing_key(SigningKey::new(KEY));
    let engine = with(builder.service("mail", Arc::new(Echo))).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    Stage { engine, tenant, _home: home }
}

impl Stage {
    fn work(&self, key: &str) -> (Gate, Task) {
        started(self.tenant.launch(&with_step(key)).unwrap());
        let worker = self.tenant.register(many("w")).unwrap();
        let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
        (worker, task)
    }
}

fn open(worker: &Gate, task: &Task, services: &[&str]) -> Proxy {
    match worker.proxy(task, services).unwrap() {
        Proxied::Open(proxy) => proxy,
        Proxied::Refused(refusal) => panic!("refused: {refusal}"),
    }
}

fn answers(url: &str) -> bool {
    ask(url, "POST", "/mail", "", b"x").is_ok_and(|answer| answer.body == b"echo x")
}

/// Nothing listens on the port.
fn is_refused(port: u16) -> bool {
    let tried = TcpStream::connect(("127.0.0.1", port));
    tried.is_err_and(|err| err.kind() == io::ErrorKind::ConnectionRefused)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SLACK;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

// A real child.

/// The child: this test binary again. Does nothing in a run of all tests.
#[test]
fn a_child_that_calls_through_its_port() {
    let Ok(url) = std::env::var(VARIABLE) else { return };
    let say = |what: String| {
        println!("child: {what}");
        io::stdout().flush().unwrap();
    };
    let mail = ask(&url, "POST", "/mail", "", b"hello").unwrap();
    say(format!("{} {}", mail.status(), mail.text()));
    let headers = "Authorization: Bearer of-the-child\r\nX-Of-The-Child: yes\r\nConnection: close, x-secret\r\nX-Secret: 1\r\n";
    let bank = ask(&url, "PUT", "/bank/accounts/7?full=yes", headers, b"amount=3").unwrap();
    let kept = (bank.header("x-kept"), bank.header("x-hop"));
    say(format!("{} {} {kept:?}", bank.status(), bank.text()));
    // Connected, and on the connection nothing yet.
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut idle = TcpStream::connect(address).unwrap();
    idle.set_read_timeout(Some(LONG)).unwrap();
    say("ready".to_owned());
    while !TcpStream::connect(address).is_err_and(|err| err.kind() == io::ErrorKind::ConnectionRefused) {
        thread::sleep(Duration::from_millis(1));
    }
    say("gone".to_owned());
    let broken = !idle.read(&mut [0; 1]).is_ok_and(|read| read > 0);
    say(format!("its connection is broken: {broken}"));
}

#[test]
fn a_child_calls_through_its_port_until_the_lease_of_its_step_ends() {
    const LEASE: Duration = Duration::from_millis(600);
    let server = Server::start(|request| (207, request.body.to_ascii_uppercase()));
    let bank = server.service("/v1");
    let heartbeats = Heartbeats { every: LEASE, intervals: 1 };
    let stage = stage(heartbeats, |builder| builder.http_service("bank", bank));
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail", "bank"]);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "proxied::a_child_that_calls_through_its_port", "--nocapture"]);
    let mut child = child.env(VARIABLE, proxy.url()).stdout(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        for line in output.lines() {
            if let Some((_, said)) = line.unwrap().split_once("child: ") {
                sender.send((Instant::now(), said.to_owned())).ok();
            }
        }
    });
    let mut said = Vec::new();
    let mut renewed = Instant::now();
    // The port outlives the lease that it was opened under, as long as that is renewed.
    while said.last().is_none_or(|last: &String| last != "ready") {
        assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Renewed);
        renewed = Instant::now();
        said.extend(lines.recv_timeout(LEASE / 10).ok().map(|(_, said)| said));
    }
    assert_eq!(said, ["200 echo hello", "207 AMOUNT=3 (Some(\"2\"), None)", "ready"]);
    let (at, last) = lines.recv_timeout(LONG).unwrap();
    assert_eq!(last, "gone");
    let lasted = at.duration_since(renewed);
    assert!(lasted >= LEASE / 2 && lasted < LEASE + SLACK, "gone after {lasted:?}");
    assert_eq!(lines.recv_timeout(LONG).unwrap().1, "its connection is broken: true");
    assert!(is_refused(proxy.port()) && !proxy.is_open());
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();

    let request = server.next();
    assert_eq!(request.first, "PUT /v1/accounts/7?full=yes HTTP/1.1");
    assert_eq!(request.header("authorization"), Some(CREDENTIALS));
    assert_eq!(request.header("host"), Some(server.address.as_str()));
    assert_eq!((request.header("x-of-the-child"), request.header("x-secret")), (Some("yes"), None));
    let token = format!("{}.{}", task.token.incarnation, task.token.counter);
    assert_eq!(request.header("cutover-token"), Some(token.as_str()));
    let signed: Signed = request.header("cutover-signature").unwrap().parse().unwrap();
    let digest = RequestDigest::of_http("PUT", "/v1/accounts/7?full=yes", b"amount=3");
    let claims = verify(&SigningKey::new(KEY), &signed, digest, 0).unwrap();
    assert_eq!((claims.instance, claims.token), (task.instance, task.token));
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(claims.expires_ms <= now_ms, "the lease that was told has ended too");
}

// What ends a port.

/// Opens a port, does something, and sees the port go.
fn goes_when(what: &str, act: impl FnOnce(&Stage, Gate, &Task, &Proxy) -> Option<Gate>) {
    let stage = stage(PATIENT, |builder| builder);
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail"]);
    assert!(proxy.is_open(), "{what}");
    let _kept = act(&stage, worker, &task, &proxy);
    // Whoever comes or goes makes the port look at its lease. So nobody does, until it is gone.
    until(what, || !proxy.is_open());
    assert!(is_refused(proxy.port()), "{what}");
}

#[test]
fn a_port_that_nobody_uses_goes_when_the_lease_runs_out() {
    let heartbeats = Heartbeats { every: Duration::from_millis(200), intervals: 1 };
    let stage = stage(heartbeats, |builder| builder.background(false));
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail"]);
    assert!(proxy.is_open());
    until("the lease has run out", || !proxy.is_open());
    assert!(is_refused(proxy.port()));
    assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Refused(Refusal::LeaseExpired));
}

#[test]
fn a_port_goes_with_its_step_its_instance_its_worker_and_its_engine() {
    goes_when("the step is settled", |_, worker, task, _| {
        worker.complete(task, Completion::default()).unwrap();
        Some(worker)
    });
    goes_when("the instance is terminated", |stage, worker, task, _| {
        assert_eq!(stage.tenant.terminate(task.instance, "enough").unwrap(), Ended::Now);
        Some(worker)
    });
    goes_when("the worker registers anew", |_, worker, _, _| {
        worker.register_anew().unwrap();
        Some(worker)
    });
    goes_when("the gate is dropped", |_, _, _, _| None);
    goes_when("the engine is closed", |stage, worker, _, _| {
        stage.engine.close(LONG).unwrap();
        Some(worker)
    });
    goes_when("somebody asks after the tenant was deleted", |stage, worker, _, proxy| {
        stage.engine.delete_tenant("acme").unwrap();
        assert!(!answers(proxy.url()));
        Some(worker)
    });
}

#[test]
fn a_port_goes_at_once_when_its_proxy_is_dropped_and_the_step_may_have_another() {
    let stage = stage(PATIENT, |builder| builder);
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail"]);
    let err = worker.proxy(&task, &["mail"]).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::AlreadyExists, "{err}");
    let port = proxy.port();
    drop(proxy);
    assert!(is_refused(port));
    let again = open(&worker, &task, &["mail"]);
    assert!(answers(again.url()));
}

/// The engine's clock stands still, so no timer tells of the end.
#[test]
fn a_request_after_the_end_of_the_lease_is_not_made() {
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let stage = stage(PATIENT, |builder| builder.clock(clock.clone()).background(false));
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail"]);
    clock.advance(PATIENT.lease() - Duration::from_millis(1));
    assert!(answers(proxy.url()));
    clock.advance(Duration::from_millis(1));
    assert!(!answers(proxy.url()));
    until("somebody has asked", || is_refused(proxy.port()));
    assert!(matches!(worker.proxy(&task, &["mail"]).unwrap(), Proxied::Refused(Refusal::LeaseExpired)));
}

// Who is let in, and to what.

#[test]
fn a_port_is_for_those_who_were_told_and_for_what_they_may_call() {
    let server = Server::start(|_| (200, Vec::new()));
    let bank = server.service("/v1");
    let stage = stage(PATIENT, |builder| {
        builder.service("the fax", Arc::new(Echo)).service("other", Arc::new(Echo)).http_service("bank", bank)
    });
    let (worker, task) = stage.work("k");
    let unknown = worker.proxy(&task, &["mail", "telex"]).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert!(unknown.to_string().contains("\"telex\""), "{unknown}");
    assert_eq!(worker.proxy(&task, &[]).unwrap_err().kind(), ErrorKind::InvalidInput);

    let proxy = open(&worker, &task, &["mail", "the fax", "bank"]);
    let (port, url) = (proxy.port(), proxy.url());
    let secret = url.rsplit('/').next().unwrap();
    assert_eq!(secret.len(), 32);
    assert!(!format!("{proxy:?}").contains(secret));
    let says = |url: &str, method: &str, path: &str, body: &[u8]| {
        let answer = ask(url, method, path, "", body).unwrap();
        (answer.status(), answer.text().to_owned())
    };
    let wrong = format!("http://127.0.0.1:{port}/{}", "0".repeat(32));
    assert_eq!(says(&wrong, "POST", "/mail", b"x"), (404, String::new()));
    assert_eq!(says(&format!("http://127.0.0.1:{port}/mail"), "POST", "", b"x"), (404, String::new()));
    assert_eq!(says(url, "POST", "/the%20fax", b"x"), (200, "echo x".to_owned()));
    assert_eq!(says(url, "POST", "/mail/any/path", b"x"), (200, "echo x".to_owned()));
    assert_eq!(says(url, "POST", "/other", b"x").0, 403, "registered, and not for this step");
    assert_eq!(says(url, "POST", "/telex", b"x").0, 403);
    assert_eq!(says(url, "GET", "/mail", b"").0, 405);
    assert_eq!(says(url, "GET", "/bank/../admin", b"").0, 400);
    assert_eq!(says(url, "GET", "/bank/a/%2e%2e/%2E%2e/admin", b"").0, 400);
    let (status, text) = says(url, "POST", "/mail", b"fail");
    assert_eq!((status, text.as_str()), (502, "the service \"mail\" failed: no such mailbox"));
    assert!(server.requests.try_recv().is_err(), "nothing of this reached the bank");

    assert_eq!(says(url, "POST", "/mail", &vec![b'x'; MAX_PAYLOAD - "echo ".len()]).0, 200);
    for path in ["/mail", "/bank"] {
        // Its end may not have been read any more, and then the answer may be lost.
        let answer = ask(url, "POST", path, "", &vec![b'x'; MAX_PAYLOAD + 1]);
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 413), "{path}");
    }
    assert!(server.requests.try_recv().is_err());
    assert_eq!(says(url, "DELETE", "/bank", b"").0, 200);
    assert_eq!(server.next().first, "DELETE /v1 HTTP/1.1");
}

#[test]
fn something_else_than_http_does_a_port_no_harm() {
    let stage = stage(PATIENT, |builder| builder);
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail"]);
    for bytes in
        [&b"\0\xff\r\n\r\n"[..], b"GET\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", &[b'x'; 1 << 20]]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        drop(stream.write_all(bytes));
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut said = Vec::new();
        drop(stream.take(64).read_to_end(&mut said));
        assert!(!said.starts_with(b"HTTP/1.1 2"), "{:?}", String::from_utf8_lossy(&said));
    }
    assert!(answers(proxy.url()));
}

/// A service may answer such a request with the whole of it.
#[test]
fn no_method_shows_the_credentials_to_the_child() {
    let server = Server::start(|request| (200, format!("{:?}", request.headers).into_bytes()));
    let bank = server.service("/v1");
    let stage = stage(PATIENT, |builder| builder.http_service("bank", bank));
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail", "bank"]);
    for method in ["TRACE", "trace", "TRACK", "CONNECT"] {
        let answer = ask(proxy.url(), method, "/bank", "", b"").unwrap();
        assert_eq!(answer.status(), 405, "{method}");
        let allowed: Vec<&str> = answer.header("allow").unwrap().split(", ").collect();
        assert!(allowed.contains(&"POST") && !allowed.contains(&method), "{allowed:?}");
        assert!(!answer.text().contains("hunter2"), "{method}");
        let answer = ask(proxy.url(), method, "/mail", "", b"").unwrap();
        assert_eq!((answer.status(), answer.header("allow")), (405, Some("POST")), "{method}");
    }
    assert!(server.requests.try_recv().is_err(), "the bank was not asked");
    assert_eq!(ask(proxy.url(), "PROPFIND", "/bank", "", b"").unwrap().status(), 200);
}

#[test]
fn who_says_nothing_does_not_keep_the_child_out() {
    let stage = stage(PATIENT, |builder| builder);
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail"]);
    let childs = connect(proxy.url()).unwrap();
    let answers_on = |stream| {
        ask_on(stream, proxy.url(), "POST", "/mail", "", b"x").is_ok_and(|answer| answer.status() == 200)
    };
    assert!(answers_on(&childs));
    let silent: Vec<TcpStream> = (0..40).map(|_| connect(proxy.url()).unwrap()).collect();
    let begun = Instant::now();
    assert!(answers(proxy.url()));
    assert!(begun.elapsed() < SLACK);
    assert!(answers_on(&childs), "who has shown the secret makes no room for others");
    drop(silent);
}

/// Nobody else comes for whom room would have to be made.
#[test]
fn a_request_that_does_not_come_is_not_waited_for() {
    let stage = stage(PATIENT, |builder| builder);
    let (worker, task) = stage.work("k");
    let proxy = open(&worker, &task, &["mail"]);
    let secret = proxy.url().rsplit('/').next().unwrap();
    let says = |text: String| {
        let mut stream = connect(proxy.url()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let silent = [says(String::new()), says(format!("POST /{secret}/mail HTT"))];
    let broken_off = says(format!("POST /{secret}/mail HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx"));
    let used = connect(proxy.url()).unwrap();
    assert_eq!(ask_on(&used, proxy.url(), "POST", "/mail", "", b"x").unwrap().status(), 200);
    let answer = Message::read(&mut BufReader::new(broken_off)).unwrap();
    assert_eq!((answer.status(), answer.header("connection")), (408, Some("close")));
    for mut stream in silent.into_iter().chain([used]) {
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            Ok(_) => assert_eq!(String::from_utf8_lossy(&said), ""),
            Err(err) => assert_eq!(err.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    assert!(answers(proxy.url()));
}

#[test]
fn a_worker_calls_a_service_over_http_through_its_gate_as_well() {
    let server = Server::start(|request| match request.body.as_slice() {
        b"hunter2-fail" => (500, b"hunter2-answer".to_vec()),
        b"long" => (200, vec![0; MAX_PAYLOAD + 1]),
        body => (200, body.to_ascii_uppercase()),
    });
    let (bank, gone) = (server.service("/v1/"), TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let nobody = HttpService::new(&format!("http://{}", gone.local_addr().unwrap())).unwrap();
    drop(gone);
    let stage = stage(PATIENT, |builder| builder.http_service("bank", bank).http_service("nobody", nobody));
    let (worker, task) = stage.work("k");
    let answered = Called::Answered { answer: b"PAY".to_vec(), lost: None };
    assert_eq!(worker.call(&task, "bank", b"pay").unwrap(), answered);
    let request = server.next();
    assert_eq!(request.first, "POST /v1 HTTP/1.1");
    assert_eq!(request.header("authorization"), Some(CREDENTIALS));
    let signed: Signed = request.header("cutover-signature").unwrap().parse().unwrap();
    let digest = RequestDigest::of_http("POST", "/v1", b"pay");
    assert_eq!(verify(&SigningKey::new(KEY), &signed, digest, 0).unwrap().token, task.token);
    for (service, request, says) in
        [("bank", &b"hunter2-fail"[..], "500"), ("bank", b"long", "bytes"), ("nobody", b"pay", "connecting")]
    {
        let err = worker.call(&task, service, request).unwrap_err();
        let text = format!("{err} {err:?}");
        assert_eq!(err.kind(), ErrorKind::Service, "{text}");
        assert!(text.contains(&format!("{service:?}")) && text.contains(says), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    worker.complete(&task, Completion::default()).unwrap();
    assert_eq!(worker.call(&task, "bank", b"pay").unwrap(), Called::Refused(Refusal::NotHeld));
    stage.engine.close(LONG).unwrap();
}

#[test]
fn two_steps_of_one_worker_have_a_port_each() {
    let stage = stage(PATIENT, |builder| builder);
    started(stage.tenant.launch(&keyed("k").step(NewStep::new("a")).step(NewStep::new("b"))).unwrap());
    let worker = stage.tenant.register(many("w")).unwrap();
    let [one, other] = [(); 2].map(|()| worker.claim("default", Duration::ZERO).unwrap().unwrap());
    let (first, second) = (open(&worker, &one, &["mail"]), open(&worker, &other, &["mail"]));
    let secret = first.url().rsplit('/').next().unwrap();
    assert!(!answers(&format!("http://127.0.0.1:{}/{secret}", second.port())), "the other one's secret");
    worker.complete(&one, Completion::default()).unwrap();
    until("the first is settled", || !first.is_open());
    assert!(is_refused(first.port()));
    assert!(answers(second.url()));
}
