//! Which interfaces to record: names, patterns, or all that lead to pods and out of the node.

use std::fmt;

use crate::link::Interface;

/// What pods' ends are called on the node by Cilium, plain CNI plugins, Calico and the AWS one.
const POD_SIDE: [&str; 4] = ["lxc*", "veth*", "cali*", "eni*"];

/// The interfaces that a user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    all: bool,
    patterns: Vec<String>,
}

/// An empty pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an interface needs a name, a pattern such as lxc*, or the word all")]
pub struct ParseSelectionError;

impl Selection {
    /// The pod side of every pod (by name, or one end of a pair), and the interfaces that default routes leave
    /// by; where there is neither, every interface that is not made by software. Never loopback.
    pub const ALL: Self = Self { all: true, patterns: Vec::new() };

    /// Reads names, patterns (`*` stands for any text, `?` for any letter) and the word `all`; commas separate
    /// too.
    ///
    /// # Errors
    /// Where one of them is empty, or there is none.
    pub fn parse<T: AsRef<str>>(words: &[T]) -> Result<Self, ParseSelectionError> {
        let mut selection = Self { all: false, patterns: Vec::new() };
        for word in words.iter().flat_map(|word| word.as_ref().split(',')) {
            match word {
                "" => return Err(ParseSelectionError),
                "all" => selection.all = true,
                pattern => selection.patterns.push(pattern.to_owned()),
            }
        }
        if selection.all || !selection.patterns.is_empty() { Ok(selection) } else { Err(ParseSelectionError) }
    }

    /// Of `interfaces`, those that are asked for. `uplinks` are indices of interfaces that default routes leave by.
    pub fn of<'a>(&self, interfaces: &'a [Interface], uplinks: &[u32]) -> Vec<&'a Interface> {
        let chosen: Vec<&Interface> =
            interfaces.iter().filter(|interface| self.takes(interface, uplinks)).collect();
        if !chosen.is_empty() || !self.all {
            return chosen;
        }
        interfaces.iter().filter(|interface| !interface.is_virtual && !interface.is_loopback).collect()
    }

    /// Whether an interface is asked for.
    pub fn takes(&self, interface: &Interface, uplinks: &[u32]) -> bool {
        let by_all = self.all
            && !interface.is_loopback
            && (interface.is_pair
                || uplinks.contains(&interface.index)
                || POD_SIDE.iter().any(|pattern| matches(pattern, &interface.name)));
        by_all || self.patterns.iter().any(|pattern| matches(pattern, &interface.name))
    }

    /// The names asked for that are no patterns: one that is not there is a mistake.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(String::as_str).filter(|pattern| !pattern.contains(['*', '?']))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all.then_some("all");
        let words: Vec<&str> = all.into_iter().chain(self.patterns.iter().map(String::as_str)).collect();
        f.write_str(&words.join(","))
    }
}

/// Whether a shell pattern fits a name. Linear in the product of both lengths; names have at most 15 bytes.
fn matches(pattern: &str, name: &str) -> bool {
    let mut letters = pattern.chars();
    match letters.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = letters.as_str();
            let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.any(|at| matches(rest, &name[at..]))
        }
        Some(letter) => {
            let mut others = name.chars();
            others.next().is_some_and(|other| letter == '?' || letter == other)
                && matches(letters.as_str(), others.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkLayer;

    fn interface(index: u32, name: &str) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            link_layer: Some(LinkLayer::Ethernet),
            is_loopback: name == "lo",
            is_pair: false,
            is_virtual: name != "eth0",
        }
    }

    fn names<'a>(selection: &[&str], interfaces: &'a [Interface], uplinks: &[u32]) -> Vec<&'a str> {
        let selection = Selection::parse(selection).unwrap();
        selection.of(interfaces, uplinks).iter().map(|interface| interface.name.as_str()).collect()
    }

    #[test]
    fn all_takes_pods_and_uplinks_and_never_loopback() {
        let found = ["lo", "eth0", "docker0", "lxc4711", "cali1", "wg0"];
        let found: Vec<Interface> = (1..).zip(found).map(|(index, name)| interface(index, name)).collect();
        assert_eq!(names(&["all"], &found, &[2]), ["eth0", "lxc4711", "cali1"]);
        assert_eq!(names(&["all"], &found, &[]), ["lxc4711", "cali1"]);
        assert_eq!(names(&["all", "lo"], &found, &[]), ["lo", "lxc4711", "cali1"]);
        // A node without pods and without a default route.
        assert_eq!(names(&["all"], &found[..3], &[]), ["eth0"]);
    }

    #[test]
    fn names_patterns_and_lists_choose() {
        let found = [interface(1, "lo"), interface(2, "eth0"), interface(3, "eth10"), interface(4, "ethx")];
        assert_eq!(names(&["eth0,lo"], &found, &[]), ["lo", "eth0"]);
        assert_eq!(names(&["eth?"], &found, &[]), ["eth0", "ethx"]);
        assert_eq!(names(&["e*0"], &found, &[]), ["eth0", "eth10"]);
        assert_eq!(names(&["*"], &found, &[]).len(), 4);
        assert_eq!(Selection::parse(&["eth0", ""]), Err(ParseSelectionError));
        assert_eq!(Selection::parse::<&str>(&[]), Err(ParseSelectionError));
        let selection = Selection::parse(&["all", "lxc*", "eth0"]).unwrap();
        assert_eq!(selection.names().collect::<Vec<_>>(), ["eth0"]);
        assert_eq!(selection.to_string(), "all,lxc*,eth0");
    }
}
