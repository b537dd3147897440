//! Rules by path: as many steps as the path has segments, however many rules there are.
//!
//! Exact paths are looked up whole. Prefixes and templates share a tree with one step a segment; a template's placeholder is
//! a branch of its own, so a path may go down several branches at once, but comes to no node twice. Suffixes are sorted by
//! their last byte first, which puts all that end a path into one chain.

use std::cmp::Ordering;

use super::lookup::Lookup;
use super::set::{Collected, Rules, Set};
use crate::policy::path::{PathPattern, Segment};

/// How a trailing slash counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reading {
    /// For rules that allow: a path with it is another one.
    AsIs,
    /// For rules that refuse: it makes no difference.
    Folded,
}

/// Rules that name paths, all of which read them in one way.
#[derive(Debug)]
pub(super) struct Paths<R = Rules> {
    reading: Reading,
    exact: Lookup<Box<[u8]>, R>,
    tree: Vec<Node<R>>,
    suffixes: Vec<Suffix<R>>,
}

/// A place in the tree: what the paths that lead here begin with.
#[derive(Debug, Default)]
struct Node<R> {
    literals: Lookup<Box<[u8]>, usize>,
    placeholder: Option<usize>,
    /// Of rules about the path that ends here.
    closed: R,
    /// Of rules about what is below.
    open: R,
}

#[derive(Debug)]
struct Suffix<R> {
    /// Last byte first.
    reversed: Box<[u8]>,
    /// The longest other suffix that this one ends in.
    shorter: Option<usize>,
    rules: R,
}

impl Paths<Collected> {
    pub(super) fn new(reading: Reading) -> Self {
        Self {
            reading,
            exact: Lookup::default(),
            tree: vec![Node::default()],
            suffixes: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, pattern: &PathPattern, rule: u16) {
        match pattern {
            PathPattern::Exact(text) => self.exact.entry(self.reading.of(text)).add(rule),
            PathPattern::Prefix(text) => {
                let fixed = text.strip_suffix(b"/").unwrap_or(text);
                let segments: Vec<&[u8]> = fixed.split(|&byte| byte == b'/').skip(1).collect();
                self.add_to_tree(segments.into_iter().map(Some), true, rule);
            }
            PathPattern::Template { segments, is_open } => {
                let segments = match segments.split_last() {
                    Some((Segment::Literal(last), fixed))
                        if last.is_empty() && self.reading == Reading::Folded =>
                    {
                        fixed
                    }
                    _ => segments,
                };
                let segments = segments.iter().map(|segment| match segment {
                    Segment::Literal(text) => Some(&**text),
                    Segment::Any => None,
                });
                self.add_to_tree(segments, *is_open, rule);
            }
            PathPattern::Suffix(text) => {
                let reversed = self.reading.of(text).iter().rev().copied().collect();
                let mut rules = Collected::default();
                rules.add(rule);
                self.suffixes.push(Suffix {
                    reversed,
                    shorter: None,
                    rules,
                });
            }
        }
    }

    /// A segment that is none stands for every one that is not empty.
    fn add_to_tree<'a, S: Iterator<Item = Option<&'a [u8]>>>(
        &mut self,
        segments: S,
        is_open: bool,
        rule: u16,
    ) {
        let mut at = 0;
        for segment in segments {
            let new = self.tree.len();
            let Some(node) = self.tree.get_mut(at) else {
                return;
            };
            at = match segment {
                Some(text) => match node.literals.get(text) {
                    Some(&next) => next,
                    None => {
                        *node.literals.entry(text) = new;
                        new
                    }
                },
                None => *node.placeholder.get_or_insert(new),
            };
            if at == new {
                self.tree.push(Node::default());
            }
        }
        if let Some(node) = self.tree.get_mut(at) {
            let rules = if is_open {
                &mut node.open
            } else {
                &mut node.closed
            };
            rules.add(rule);
        }
    }

    pub(super) fn finish(mut self, words: usize) -> Paths {
        self.suffixes.sort_by(|a, b| a.reversed.cmp(&b.reversed));
        let mut suffixes: Vec<Suffix<Collected>> = Vec::with_capacity(self.suffixes.len());
        for suffix in self.suffixes {
            match suffixes.last_mut() {
                // A stable sort of what was added in ascending order.
                Some(last) if last.reversed == suffix.reversed => last.rules.append(suffix.rules),
                _ => suffixes.push(suffix),
            }
        }
        let mut open: Vec<usize> = Vec::new();
        for at in 0..suffixes.len() {
            let is_part = |&shorter: &usize| match (suffixes.get(shorter), suffixes.get(at)) {
                (Some(shorter), Some(own)) => own.reversed.starts_with(&shorter.reversed),
                _ => false,
            };
            while open.last().is_some_and(|last| !is_part(last)) {
                open.pop();
            }
            if let Some(suffix) = suffixes.get_mut(at) {
                suffix.shorter = open.last().copied();
            }
            open.push(at);
        }
        Paths {
            reading: self.reading,
            exact: self.exact.finish(words),
            tree: self
                .tree
                .into_iter()
                .map(|node| Node {
                    literals: node.literals,
                    placeholder: node.placeholder,
                    closed: node.closed.finish(words),
                    open: node.open.finish(words),
                })
                .collect(),
            suffixes: suffixes
                .into_iter()
                .map(|suffix| Suffix {
                    reversed: suffix.reversed,
                    shorter: suffix.shorter,
                    rules: suffix.rules.finish(words),
                })
                .collect(),
        }
    }
}

impl Paths {
    /// Adds the rules about a canonical path, its escapes undone.
    pub(super) fn add_to(&self, set: &mut Set, path: &[u8]) {
        let path = self.reading.of(path);
        self.exact.add_to(set, path);
        self.descend(0, path.strip_prefix(b"/"), set);
        self.add_suffixes(set, path);
    }

    /// `rest` is what follows the slash behind the node, none where the path ends at it. Patterns have at most
    /// [`MAX_SEGMENTS`](crate::policy::path::MAX_SEGMENTS), which bounds the depth.
    fn descend(&self, at: usize, rest: Option<&[u8]>, set: &mut Set) {
        let Some(node) = self.tree.get(at) else {
            return;
        };
        let Some(rest) = rest else {
            set.add(&node.closed);
            if self.reading == Reading::Folded {
                set.add(&node.open);
            }
            return;
        };
        set.add(&node.open);
        if node.literals.is_empty() && node.placeholder.is_none() {
            return;
        }
        let end = rest.iter().position(|&byte| byte == b'/');
        let (segment, rest) = match end.and_then(|end| rest.split_at_checked(end)) {
            Some((segment, rest)) => (segment, rest.strip_prefix(b"/")),
            None => (rest, None),
        };
        if let Some(&next) = node.literals.get(segment) {
            self.descend(next, rest, set);
        }
        if let Some(next) = node.placeholder
            && !segment.is_empty()
        {
            self.descend(next, rest, set);
        }
    }

    fn add_suffixes(&self, set: &mut Set, path: &[u8]) {
        let reversed = || path.iter().rev();
        let after = self
            .suffixes
            .partition_point(|suffix| suffix.reversed.iter().cmp(reversed()) != Ordering::Greater);
        // Everything between a suffix of the path and the path itself, in this order, ends in that suffix: the chain from
        // the last one before the path has them all.
        let nearest = after.checked_sub(1);
        let mut next = nearest.and_then(|at| self.suffixes.get(at));
        let common = next.map_or(0, |suffix| {
            let pairs = suffix.reversed.iter().zip(reversed());
            pairs.take_while(|(own, given)| own == given).count()
        });
        while let Some(suffix) = next {
            if suffix.reversed.len() <= common {
                set.add(&suffix.rules);
            }
            next = suffix.shorter.and_then(|at| self.suffixes.get(at));
        }
    }
}

impl Reading {
    fn of(self, path: &[u8]) -> &[u8] {
        match self {
            Self::AsIs => path,
            Self::Folded => path.strip_suffix(b"/").unwrap_or(path),
        }
    }
}
