//! The log of a disk: every request that it was given, in order, in the format of the kernel's dm-log-writes, which
//! qemu's `blklogwrites` writes too (Documentation/admin-guide/device-mapper/log-writes.rst).

use std::io::{Read, Seek, SeekFrom};

/// Bytes of a sector of the disk and of the log.
pub(crate) const SECTOR: u64 = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// A request to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// Where on the disk it begins, in sectors.
    pub sector: u64,
    /// Sectors written; none for a flush.
    pub sectors: u64,
    /// Where in the log what it writes begins, in bytes.
    pub data: u64,
    /// What was written before it is on the disk when it is answered.
    pub flush: bool,
    /// It is on the disk itself when it is answered.
    pub forced: bool,
}

/// Reads a log. Requests that discard are left out: they promise nothing.
///
/// # Errors
/// If this is no log, or it has a hole: one request was logged and one before it was not, when the disk died. That
/// can only be where requests are served side by side.
pub(crate) fn requests(log: &mut (impl Read + Seek)) -> Result<Vec<Request>, String> {
    let (mut found, mut seen, mut at) = (Vec::new(), 0, SECTOR);
    let [magic, _version, promised, _sector] = header(log, 0)?.ok_or("the disk's log is empty")?;
    // It is written with each flush. Until the first one there is none.
    if ![0, MAGIC].contains(&magic) {
        return Err("the disk's log is none".to_owned());
    }
    while let Some([sector, sectors, flags, _]) = header(log, at)? {
        if [sector, sectors, flags] == [0, 0, 0] {
            break;
        }
        seen += 1;
        let discards = flags & DISCARD != 0;
        let data = at + SECTOR;
        at = data + if discards { 0 } else { sectors * SECTOR };
        if !discards {
            let (flush, forced) = (flags & FLUSH != 0, flags & FUA != 0);
            found.push(Request { sector, sectors, data, flush, forced });
        }
    }
    if seen < promised {
        return Err(format!("the disk's log has a hole: {seen} of at least {promised} requests are there"));
    }
    Ok(found)
}

/// Four words, little-endian; `None` at the end of the log.
fn header(log: &mut (impl Read + Seek), at: u64) -> Result<Option<[u64; 4]>, String> {
    let mut bytes = [0; 32];
    log.seek(SeekFrom::Start(at)).map_err(|err| format!("the disk's log: {err}"))?;
    match log.read_exact(&mut bytes) {
        Ok(()) => {}
        Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(err) => return Err(format!("the disk's log: {err}")),
    }
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(Some(words))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use super::*;

    pub(in super::super) const W: u64 = 0;
    pub(in super::super) const F: u64 = FLUSH;
    pub(in super::super) const FORCED: u64 = FUA;

    /// A log of these requests: sector, flags, and a letter for each sector that is written.
    pub(in super::super) fn log_of(promised: u64, requests: &[(u64, u64, &str)]) -> Cursor<Vec<u8>> {
        let mut log = words([MAGIC, 1, promised, SECTOR]);
        for (sector, flags, letters) in requests {
            log.extend(words([*sector, letters.len() as u64, *flags, 0]));
            if flags & DISCARD == 0 {
                log.extend(letters.bytes().flat_map(|letter| [letter; SECTOR as usize]));
            }
        }
        // As the file is longer than what was logged.
        log.extend([0; 4 * SECTOR as usize]);
        Cursor::new(log)
    }

    fn words(words: [u64; 4]) -> Vec<u8> {
        let mut sector: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        sector.resize(SECTOR as usize, 0);
        sector
    }

    #[test]
    fn requests_are_read_in_order() {
        let mut log = log_of(2, &[(0, W, "ab"), (9, DISCARD, "xxxx"), (0, F, ""), (7, FORCED, "c")]);
        let [first, flush, forced] = requests(&mut log).unwrap().try_into().unwrap();
        let plain = Request { sector: 0, sectors: 2, data: 1_024, flush: false, forced: false };
        assert_eq!(first, plain);
        assert!(flush.flush && flush.sectors == 0);
        assert!(forced.forced && !forced.flush && forced.sector == 7);
        let mut letter = [0];
        log.seek(SeekFrom::Start(forced.data)).unwrap();
        log.read_exact(&mut letter).unwrap();
        assert_eq!(letter, *b"c");
    }

    #[test]
    fn the_last_request_may_be_cut_off() {
        let mut log = log_of(0, &[(1, W, "a"), (2, W, "b")]).into_inner();
        log.truncate(3 * SECTOR as usize + 20);
        assert_eq!(requests(&mut Cursor::new(log)).unwrap().len(), 1);
    }

    #[test]
    fn before_the_first_flush_a_log_has_no_head() {
        let mut log = log_of(0, &[(1, W, "a")]).into_inner();
        log[..SECTOR as usize].fill(0);
        assert_eq!(requests(&mut Cursor::new(log)).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_log_and_what_has_a_hole() {
        assert!(requests(&mut Cursor::new(Vec::new())).unwrap_err().contains("empty"));
        assert!(requests(&mut Cursor::new(vec![7; 2_000])).unwrap_err().contains("none"));
        let mut holed = log_of(2, &[(1, W, "a"), (2, F, "")]).into_inner();
        holed[SECTOR as usize..3 * SECTOR as usize].fill(0);
        assert!(requests(&mut Cursor::new(holed)).unwrap_err().contains("hole"));
    }
}
