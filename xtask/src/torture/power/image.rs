//! What a disk may hold after the power was cut: rebuilt from what it held before and the log of its requests.

use std::io::{Read, Seek, SeekFrom, Write};

use super::super::plan::Tail;
use super::log::{Request, SECTOR};

/// The second half of ext4's superblock, which has its checksum. The file system relies on both halves being written
/// together, and is not what is tried here: torn, it asks for e2fsck and is not mounted.
const SECOND_HALF: u64 = 3;

/// What the cut has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub requests: u64,
    /// Requests after the last flush.
    pub unflushed: u64,
    /// Sectors of these that are lost.
    pub sectors: u64,
}

/// Writes to `image`, which holds what the disk held before, all that is certain to be there after the cut, and of the
/// rest what `tail` and the seed decide, sector by sector.
///
/// # Errors
/// If one of the two cannot be read or written.
pub(crate) fn rebuild(
    log: &mut (impl Read + Seek),
    requests: &[Request],
    image: &mut (impl Write + Seek),
    tail: Tail,
    seed: u64,
) -> Result<Taken, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let flushed = requests.iter().rposition(|request| request.flush).unwrap_or(0);
    let mut taken = Taken { requests: requests.len() as u64, unflushed: 0, sectors: 0 };
    let mut data = Vec::new();
    for (at, request) in requests.iter().enumerate() {
        if request.sectors == 0 {
            continue;
        }
        // The data of a request that also flushes is written after the flush.
        let certain = at < flushed || request.forced;
        taken.unflushed += u64::from(!certain);
        read(log, request, &mut data)?;
        if certain {
            put(image, request.sector, &data)?;
            continue;
        }
        let mut there = false;
        for (sector, bytes) in (request.sector..).zip(data.chunks(SECTOR as usize)) {
            if sector != SECOND_HALF || sector == request.sector {
                there = tail == Tail::Torn && rng.bool();
            }
            if there {
                put(image, sector, bytes)?;
            } else {
                taken.sectors += 1;
            }
        }
    }
    image.flush().map_err(|err| format!("the image: {err}"))?;
    Ok(taken)
}

fn read(log: &mut (impl Read + Seek), request: &Request, data: &mut Vec<u8>) -> Result<(), String> {
    data.clear();
    log.seek(SeekFrom::Start(request.data)).map_err(|err| format!("the disk's log: {err}"))?;
    let mut part = log.take(request.sectors * SECTOR);
    // The last request may have been cut off: its sectors that are there may have reached the disk.
    part.read_to_end(data).map_err(|err| format!("the disk's log: {err}"))?;
    data.truncate(data.len() - data.len() % SECTOR as usize);
    Ok(())
}

fn put(image: &mut (impl Write + Seek), sector: u64, data: &[u8]) -> Result<(), String> {
    image
        .seek(SeekFrom::Start(sector * SECTOR))
        .and_then(|_| image.write_all(data))
        .map_err(|err| format!("the image: {err}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::log::requests;
    use super::super::log::tests::{F, FORCED, W, log_of};
    use super::*;

    /// The image as one letter a sector, from a disk of eight sectors of dots.
    fn after(log: &[(u64, u64, &str)], tail: Tail, seed: u64) -> (String, Taken) {
        let mut log = log_of(0, log);
        let requests = requests(&mut log).unwrap();
        let mut image = Cursor::new(vec![b'.'; 8 * SECTOR as usize]);
        let taken = rebuild(&mut log, &requests, &mut image, tail, seed).unwrap();
        let sectors = image.into_inner();
        let letters = sectors.chunks(SECTOR as usize).map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is torn inside");
            char::from(sector[0])
        });
        (letters.collect(), taken)
    }

    #[test]
    fn what_was_flushed_is_there_and_nothing_else() {
        let log = [(0, W, "ab"), (1, W, "c"), (0, F, ""), (3, W, "dd"), (0, W, "e")];
        let (image, taken) = after(&log, Tail::Lost, 0);
        assert_eq!(image, "ac......");
        assert_eq!(taken, Taken { requests: 5, unflushed: 2, sectors: 3 });
    }

    #[test]
    fn without_a_flush_nothing_is_certain() {
        let (image, taken) = after(&[(0, W, "a"), (1, W, "b")], Tail::Lost, 0);
        assert_eq!((image.as_str(), taken.sectors), ("........", 2));
    }

    #[test]
    fn a_forced_write_is_there_and_does_not_force_what_came_before_it() {
        let (image, _) = after(&[(0, W, "a"), (1, FORCED, "b"), (2, W, "c")], Tail::Lost, 0);
        assert_eq!(image, ".b......");
    }

    #[test]
    fn a_flush_that_writes_flushes_only_what_came_before_it() {
        assert_eq!(after(&[(0, W, "a"), (1, F, "b")], Tail::Lost, 0).0, "a.......");
        assert_eq!(after(&[(0, W, "a"), (1, F | FORCED, "b")], Tail::Lost, 0).0, "ab......");
    }

    #[test]
    fn a_torn_tail_has_every_mixture_of_its_sectors_and_no_other() {
        let log = [(4, W, "aaaa"), (0, F, ""), (4, W, "bcd")];
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let (image, taken) = after(&log, Tail::Torn, seed);
            assert_eq!(image[4..7].matches('a').count() as u64, taken.sectors);
            seen.insert(image);
        }
        let mixtures = ["aaa", "aad", "aca", "acd", "baa", "bad", "bca", "bcd"];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), mixtures.map(|three| format!("....{three}a")));
    }

    #[test]
    fn the_superblock_is_not_torn() {
        for seed in 0..50 {
            let (image, _) = after(&[(0, W, "abcdef")], Tail::Torn, seed);
            assert!([Some("cd"), Some("..")].contains(&image.get(2..4)), "{image}");
        }
    }

    #[test]
    fn a_seed_tears_the_same_again() {
        let log = [(0, W, "abcdefgh")];
        assert_eq!(after(&log, Tail::Torn, 5), after(&log, Tail::Torn, 5));
    }
}
