//! Shares of what is scarce: so many for each holder and so many for all. A share that is dropped is free at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The limits, and what is taken; a clone shares both.
#[derive(Debug, Clone)]
pub struct Quota<K> {
    each: usize,
    all: usize,
    taken: Arc<Mutex<Taken<K>>>,
}

#[derive(Debug)]
struct Taken<K> {
    by: HashMap<K, usize>,
    all: usize,
}

/// The limit that leaves no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// That of each holder.
    Each(usize),
    /// That of all holders together.
    All(usize),
}

/// What one holder has taken, until it is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    /// None where it adds to a share that the holder has.
    holder: Option<K>,
    size: usize,
    taken: Arc<Mutex<Taken<K>>>,
}

impl<K: Clone + Eq + Hash> Quota<K> {
    /// Shares that nobody has taken yet: most of each holder, and most of all.
    pub fn new(each: usize, all: usize) -> Self {
        Self { each, all, taken: Arc::new(Mutex::new(Taken { by: HashMap::new(), all: 0 })) }
    }

    /// Takes a share. It is one of the holder's, and counts as `size` among all.
    pub fn take(&self, holder: &K, size: usize) -> Result<Share<K>, Full> {
        let mut taken = lock(&self.taken);
        if taken.by.get(holder).is_some_and(|count| *count >= self.each) {
            return Err(Full::Each(self.each));
        }
        if taken.all + size > self.all {
            return Err(Full::All(self.all));
        }
        taken.all += size;
        *taken.by.entry(holder.clone()).or_insert(0) += 1;
        Ok(Share { holder: Some(holder.clone()), size, taken: self.taken.clone() })
    }

    /// Takes more for somebody who has a share: it counts as `size` among all.
    pub fn more(&self, size: usize) -> Result<Share<K>, Full> {
        let mut taken = lock(&self.taken);
        if taken.all + size > self.all {
            return Err(Full::All(self.all));
        }
        taken.all += size;
        Ok(Share { holder: None, size, taken: self.taken.clone() })
    }
}

impl<K: Eq + Hash> Share<K> {
    /// Gives back what is more than `size`.
    pub fn shrink(&mut self, size: usize) {
        let kept = self.size.min(size);
        lock(&self.taken).all -= self.size - kept;
        self.size = kept;
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= self.size;
        let Some(holder) = &self.holder else { return };
        match taken.by.get_mut(holder) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.by.remove(holder)),
        }
    }
}

fn lock<K>(taken: &Mutex<Taken<K>>) -> MutexGuard<'_, Taken<K>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_and_all_have_a_limit_and_what_is_dropped_is_free() {
        let quota = Quota::new(2, 5);
        let first = quota.take(&"ann", 1).unwrap();
        let second = quota.take(&"ann", 1).unwrap();
        assert_eq!(quota.take(&"ann", 1).unwrap_err(), Full::Each(2));
        let third = quota.take(&"bob", 3).unwrap();
        assert_eq!(quota.clone().take(&"eve", 1).unwrap_err(), Full::All(5));
        drop((first, third));
        let mut fourth = quota.take(&"ann", 4).unwrap();
        fourth.shrink(9);
        assert_eq!(quota.take(&"bob", 1).unwrap_err(), Full::All(5), "shrinking takes nothing");
        fourth.shrink(2);
        assert!(quota.take(&"bob", 2).is_ok());
        drop(fourth);
        let more = quota.more(4).unwrap();
        assert_eq!(quota.more(1).unwrap_err(), Full::All(5), "what is added counts among all");
        drop(more);
        assert!(quota.take(&"ann", 4).is_ok());
        drop(second);
        assert!(lock(&quota.taken).by.is_empty(), "who has nothing is not remembered");
    }
}
