//! What the lines of `cutover load` and the last line of `cutover check` say, as far as the torture has to know.

use serde_json::Value;

use super::plan::Driver;

/// What a load has said until it was stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The engine was open and the load had begun.
    pub opened: bool,
    /// Acknowledgements.
    pub lines: u64,
    /// Where the tenant was last.
    pub place: Option<Place>,
}

/// Where a tenant is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub phase: String,
    /// Where its launches go.
    pub home: Driver,
}

/// The lines that are whole: the last one may have been cut off by the kill.
pub(crate) fn whole_lines(said: &[u8]) -> &[u8] {
    let end = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    said.get(..end).unwrap_or(said)
}

/// Reads a load's whole lines.
///
/// # Errors
/// If they are not what a load may say.
pub(crate) fn hear(lines: &[u8]) -> Result<Heard, String> {
    let text = std::str::from_utf8(lines).map_err(|err| format!("the load's lines are no text: {err}"))?;
    let mut place = None;
    // From the end: only the last place matters, and there are many lines.
    for line in text.lines().rev().filter(|line| line.contains("\"phase\"")) {
        let ack = parsed(line)?;
        if field(&ack, "ack") == Some("phase") {
            place = Some(read_place(&ack).ok_or_else(|| format!("the load says no place: {line}"))?);
            break;
        }
    }
    let first = text.lines().next().map(parsed).transpose()?;
    if let Some(first) = &first
        && field(first, "ack") != Some("opened")
    {
        return Err(format!("the first line of the load is not that it has opened: {first}"));
    }
    Ok(Heard { opened: first.is_some(), lines: text.lines().count() as u64, place })
}

/// The phase that a line says the tenant is in, if it says so.
pub(crate) fn phase_of(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok().filter(|line| line.contains("\"ack\":\"phase\""))?;
    Some(read_place(&parsed(line).ok()?)?.phase)
}

/// The lines with another level in the first: for checking a load that does not sync as if it did.
///
/// # Errors
/// If the first line names no level.
pub(crate) fn claim_synced(lines: &[u8]) -> Result<Vec<u8>, String> {
    let end = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1);
    let (first, rest) = lines.split_at(end);
    let first = String::from_utf8_lossy(first);
    let claimed = first.replacen("\"durability\":\"buffered\"", "\"durability\":\"synced\"", 1);
    if claimed == first {
        return Err(format!("the first line of a buffered load does not say so: {first}"));
    }
    Ok([claimed.as_bytes(), rest].concat())
}

fn read_place(ack: &Value) -> Option<Place> {
    let home = Driver::named(field(ack, "home")?)?;
    Some(Place { phase: field(ack, "phase")?.to_owned(), home })
}

/// What a check has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub ok: bool,
    /// Acknowledgements lost that might be.
    pub lost: u64,
    /// What is broken.
    pub broken: Vec<String>,
}

/// Reads what a check has printed.
///
/// # Errors
/// If it ends in no verdict.
pub(crate) fn verdict(printed: &str) -> Result<Verdict, String> {
    let line = printed.lines().last().ok_or("the check has printed nothing")?;
    let found = parsed(line)?;
    let ok = found.get("ok").and_then(Value::as_bool);
    let broken = found.get("broken").and_then(Value::as_array);
    let (Some(ok), Some(broken)) = (ok, broken) else {
        return Err(format!("the check's last line is no verdict: {line}"));
    };
    let sentence = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let lost = found.get("lost").and_then(Value::as_u64).unwrap_or(0);
    Ok(Verdict { ok, lost, broken: broken.iter().map(sentence).collect() })
}

fn parsed(line: &str) -> Result<Value, String> {
    serde_json::from_str(line).map_err(|err| format!("no JSON ({err}): {line}"))
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"ack":"opened","durability":"buffered","session":1}
{"ack":"phase","epoch":1,"phase":"stable","home":"rocksdb","other":null}
{"ack":"launch","key":"\"phase\""}
{"ack":"phase","epoch":2,"phase":"migration","home":"sled","other":"rocksdb"}
{"ack":"launch","key":"\"phase\""}
"#;

    #[test]
    fn the_last_place_and_the_number_of_lines() {
        let heard = hear(LINES.as_bytes()).unwrap();
        let place = Place { phase: "migration".to_owned(), home: Driver::Sled };
        assert_eq!(heard, Heard { opened: true, lines: 5, place: Some(place) });
    }

    #[test]
    fn nothing_said_is_a_kill_before_it_was_open() {
        assert_eq!(hear(b"").unwrap(), Heard { opened: false, lines: 0, place: None });
    }

    #[test]
    fn a_line_cut_off_is_no_line() {
        assert_eq!(whole_lines(b"one\ntwo\nthr"), b"one\ntwo\n");
        assert_eq!(whole_lines(b"thr"), b"");
        assert_eq!(whole_lines(b""), b"");
    }

    #[test]
    fn lines_that_no_load_may_say() {
        assert!(hear(b"{\"ack\":\"launch\"}\n").unwrap_err().contains("not that it has opened"));
        assert!(hear(b"opened\n").unwrap_err().contains("no JSON"));
        let nowhere = "{\"ack\":\"opened\"}\n{\"ack\":\"phase\",\"phase\":\"stable\",\"home\":\"moon\"}\n";
        assert!(hear(nowhere.as_bytes()).unwrap_err().contains("no place"));
    }

    #[test]
    fn only_the_claim_changes() {
        let claimed = String::from_utf8(claim_synced(LINES.as_bytes()).unwrap()).unwrap();
        assert_eq!(claimed, LINES.replace("buffered", "synced"));
        assert!(claim_synced(claimed.as_bytes()).is_err());
    }

    #[test]
    fn verdicts() {
        let good =
            verdict("all kept\n{\"ok\":true,\"phase\":\"stable\",\"lost\":3,\"broken\":[]}\n").unwrap();
        assert_eq!(good, Verdict { ok: true, lost: 3, broken: Vec::new() });
        let bad = verdict("{\"ok\":false,\"lost\":0,\"broken\":[\"I1: two\"]}").unwrap();
        assert_eq!(bad.broken, ["I1: two"]);
        assert!(verdict("").is_err() && verdict("{\"ok\":true}").is_err() && verdict("kept").is_err());
    }
}
