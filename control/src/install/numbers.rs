//! Numbers of the contract for the names of people.

use std::collections::BTreeMap;

/// Names with their numbers. A number is never given to another name in one life of the process, and a
/// process that finds a dataplane at work takes over the numbers that it finds.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    by_name: BTreeMap<String, u32>,
    names: BTreeMap<u32, String>,
    highest: u32,
}

impl Numbers {
    /// The number of `name`, a new one where it has none.
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        // Numbers end only after four thousand million names; what was given first goes first then.
        let number = self.highest.checked_add(1).unwrap_or(1);
        self.insert(name, number);
        number
    }

    /// Takes over a number that is in use, unless name or number are known already.
    pub(super) fn adopt(&mut self, name: &str, number: u32) {
        if !self.by_name.contains_key(name) && !self.names.contains_key(&number) {
            self.insert(name, number);
        } else {
            self.highest = self.highest.max(number);
        }
    }

    /// The number of `name`, if it has one.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The name of a number.
    pub(super) fn name(&self, number: u32) -> Option<&str> {
        self.names.get(&number).map(String::as_str)
    }

    fn insert(&mut self, name: &str, number: u32) {
        self.by_name.insert(name.to_owned(), number);
        self.names.insert(number, name.to_owned());
        self.highest = self.highest.max(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_use_are_taken_over_and_not_given_again() {
        let mut numbers = Numbers::default();
        numbers.adopt("b", 7);
        assert_eq!(numbers.number("a"), 8);
        assert_eq!(numbers.number("b"), 7);
        numbers.adopt("c", 7);
        assert_eq!(numbers.number("c"), 9);
        numbers.adopt("a", 20);
        assert_eq!(numbers.number("a"), 8);
        assert_eq!(numbers.number("d"), 21);
        assert_eq!(numbers.name(8), Some("a"));
    }
}
