//! How much is taken in: packages that arrive, wait or are being built, of one person and of all, and the bytes that they
//! take in the spool. A place is free again when its build has ended.

use dinp_common::quota::{Full, Quota, Share};

/// The places for packages.
#[derive(Debug)]
pub struct Intake {
    packages: Quota<String>,
    /// In MiB; all of it belongs to one holder.
    spool: Quota<()>,
}

/// The place of one package, until dropped.
#[derive(Debug)]
pub struct Place {
    _package: Share<String>,
    spool: Share<()>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The person has too many.
    #[error(
        "you have {0} packages here that arrive, wait or are being built, the most at a time: wait until one has ended"
    )]
    OfPerson(usize),
    /// All together have too many.
    #[error("{0} packages arrive, wait or are being built, the most at a time: try again when some have ended")]
    OfAll(usize),
    /// They are too large together.
    #[error(
        "the packages that arrive, wait or are being built fill the {0} MiB that there are for them: try again when some have ended"
    )]
    Spool(usize),
}

impl Intake {
    /// Places for so many packages of one person and of all, and for so many MiB.
    pub fn new(each: u32, all: u32, spool_mb: u32) -> Self {
        Self { packages: Quota::new(each as usize, all as usize), spool: Quota::new(usize::MAX, spool_mb as usize) }
    }

    /// A place for a package of `user` that has at most so many bytes.
    pub fn take(&self, user: &str, most_bytes: u64) -> Result<Place, NoPlace> {
        let package = self.packages.take(&user.to_owned(), 1).map_err(|full| match full {
            Full::Each(most) => NoPlace::OfPerson(most),
            Full::All(most) => NoPlace::OfAll(most),
        })?;
        let spool = self.spool.take(&(), mebibytes(most_bytes)).map_err(|full| match full {
            Full::Each(most) | Full::All(most) => NoPlace::Spool(most),
        })?;
        Ok(Place { _package: package, spool })
    }
}

impl Place {
    /// The package has arrived and has so many bytes: what it does not need is free.
    pub fn shrink(&mut self, bytes: u64) {
        self.spool.shrink(mebibytes(bytes));
    }
}

/// Begun mebibytes.
fn mebibytes(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(1 << 20)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn one_person_does_not_take_all_places_and_all_do_not_fill_the_disk() {
        let intake = Intake::new(2, 3, 100);
        let first = intake.take("ann", 30 * MIB).unwrap();
        let mut second = intake.take("ann", 30 * MIB).unwrap();
        assert_eq!(intake.take("ann", 1).unwrap_err(), NoPlace::OfPerson(2));
        assert_eq!(intake.take("bob", 41 * MIB).unwrap_err(), NoPlace::Spool(100));
        second.shrink(MIB + 1);
        let third = intake.take("bob", 41 * MIB).unwrap();
        assert_eq!(intake.take("eve", 1).unwrap_err(), NoPlace::OfAll(3));
        drop((first, second, third));
        assert!(intake.take("ann", 100 * MIB).is_ok(), "all of it is free again");
    }
}
