//! Which groups are held out: whole recordings, chosen by the seed, never some rows of one.

use std::collections::{BTreeMap, BTreeSet};

use crate::forest::random::Random;

/// Rows to fit on and rows to judge on; no group has rows in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub fit: Vec<u32>,
    pub held_out: Vec<u32>,
    /// How many groups were held out.
    pub groups: usize,
    /// How they were chosen, in words.
    pub rule: String,
}

/// A class that cannot be judged, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unjudged {
    pub class: usize,
    /// Groups that hold it.
    pub groups: usize,
}

/// Holds out `share` of the groups of every class, rounded and at least one, where that leaves a group of
/// every class to fit on. Rare classes choose first, because they have the least choice.
///
/// Returns the split and the classes without a held-out group.
pub fn hold_out(classes: &[u8], groups: &[u32], share: f64, seed: u64) -> (Split, Vec<Unjudged>) {
    let of_group = classes_of_groups(classes, groups);
    let of_class = groups_of_classes(&of_group);
    let mut order: Vec<usize> = of_class.keys().copied().collect();
    order.sort_by_key(|class| (of_class[class].len(), *class));
    let mut held = vec![false; of_group.len()];
    for class in order {
        let mut candidates = of_class[&class].clone();
        Random::new("split", seed, class as u64).shuffle(&mut candidates);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a count
        let wanted = ((candidates.len() as f64 * share).round() as usize).max(1);
        for group in &candidates {
            if candidates.iter().filter(|group| held[**group]).count() >= wanted {
                break;
            }
            held[*group] = held[*group] || can_spare(*group, &held, &of_group, &of_class);
        }
    }
    let unjudged = of_class.iter().filter(|(_, groups)| !groups.iter().any(|group| held[*group]));
    let unjudged = unjudged.map(|(class, groups)| Unjudged { class: *class, groups: groups.len() }).collect();
    let mut split = divide(groups, &held);
    split.rule = format!(
        "{} of {} recordings held out, {share} of every class's, seed {seed}",
        split.groups,
        of_group.len()
    );
    (split, unjudged)
}

/// Deals the groups of `rows` into `count` folds, so that every class has its groups spread over as many
/// folds as it can. Every fold is held out once. Empty where there are fewer groups than folds; a fold in
/// which a class would have nothing to fit on is still a fold, and the class scores 0 there.
pub fn folds(classes: &[u8], groups: &[u32], rows: &[u32], count: usize, seed: u64) -> Vec<Split> {
    let of_row = |row: &u32| (usize::from(classes[*row as usize]), groups[*row as usize] as usize);
    let mut of_class: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    rows.iter().map(of_row).for_each(|(class, group)| {
        of_class.entry(class).or_default().insert(group);
    });
    let all: BTreeSet<usize> = of_class.values().flatten().copied().collect();
    if all.len() < count {
        return Vec::new();
    }
    let mut fold_of: BTreeMap<usize, usize> = BTreeMap::new();
    let mut sizes = vec![0usize; count];
    let mut order: Vec<usize> = of_class.keys().copied().collect();
    order.sort_by_key(|class| (of_class[class].len(), *class));
    for class in order {
        let mut members: Vec<usize> = of_class[&class].iter().copied().collect();
        Random::new("folds", seed, class as u64).shuffle(&mut members);
        let mut held = vec![0usize; count];
        members.iter().filter_map(|group| fold_of.get(group)).for_each(|fold| held[*fold] += 1);
        for group in members {
            if fold_of.contains_key(&group) {
                continue;
            }
            let fold = (0..count).min_by_key(|fold| (held[*fold], sizes[*fold], *fold)).unwrap_or(0);
            fold_of.insert(group, fold);
            held[fold] += 1;
            sizes[fold] += 1;
        }
    }
    let part = |fold: usize| {
        let (held_out, fit): (Vec<u32>, Vec<u32>) =
            rows.iter().copied().partition(|row| fold_of[&(groups[*row as usize] as usize)] == fold);
        Split { fit, held_out, groups: sizes[fold], rule: format!("fold {} of {count}", fold + 1) }
    };
    (0..count).map(part).filter(|split| !split.held_out.is_empty() && !split.fit.is_empty()).collect()
}

/// Whether every class of a group keeps another group to fit on.
fn can_spare(
    group: usize,
    held: &[bool],
    of_group: &[Vec<usize>],
    of_class: &BTreeMap<usize, Vec<usize>>,
) -> bool {
    of_group[group].iter().all(|class| of_class[class].iter().any(|other| *other != group && !held[*other]))
}

/// The classes of every group, ascending.
fn classes_of_groups(classes: &[u8], groups: &[u32]) -> Vec<Vec<usize>> {
    let count = groups.iter().max().map_or(0, |last| *last as usize + 1);
    let mut found = vec![[false; model::MAX_CLASSES]; count];
    for (class, group) in classes.iter().zip(groups) {
        found[*group as usize][usize::from(*class)] = true;
    }
    found.iter().map(|found| (0..found.len()).filter(|class| found[*class]).collect()).collect()
}

fn groups_of_classes(of_group: &[Vec<usize>]) -> BTreeMap<usize, Vec<usize>> {
    let mut of_class: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (group, classes) in of_group.iter().enumerate() {
        classes.iter().for_each(|class| of_class.entry(*class).or_default().push(group));
    }
    of_class
}

/// Parts the rows by whether their group is held out.
#[allow(clippy::cast_possible_truncation)] // rows are counted in u32
pub fn divide(groups: &[u32], held: &[bool]) -> Split {
    let (held_out, fit) = (0..groups.len() as u32).partition(|row| held[groups[*row as usize] as usize]);
    Split { fit, held_out, groups: held.iter().filter(|held| **held).count(), rule: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_class_with_one_group_is_not_judged() {
        let (split, unjudged) = hold_out(&[0, 0, 1, 0, 2], &[0, 1, 2, 3, 3], 0.25, 1);
        assert_eq!(unjudged, [Unjudged { class: 1, groups: 1 }, Unjudged { class: 2, groups: 1 }]);
        assert_eq!(split.groups, 1);
        assert!(split.fit.contains(&2) && split.fit.contains(&4));
    }

    proptest! {
        #[test]
        fn groups_are_never_parted_and_every_class_keeps_one(
            rows in prop::collection::vec((0u8..5, 0u32..15), 1..200),
            seed in any::<u64>(),
        ) {
            let (classes, groups): (Vec<u8>, Vec<u32>) = rows.into_iter().unzip();
            let (split, unjudged) = hold_out(&classes, &groups, 0.25, seed);
            prop_assert_eq!(split.fit.len() + split.held_out.len(), classes.len());
            let groups_of = |rows: &[u32]| -> BTreeSet<u32> {
                rows.iter().map(|row| groups[*row as usize]).collect()
            };
            let classes_of = |rows: &[u32]| -> BTreeSet<u8> {
                rows.iter().map(|row| classes[*row as usize]).collect()
            };
            prop_assert!(groups_of(&split.fit).is_disjoint(&groups_of(&split.held_out)));
            let all: BTreeSet<u8> = classes.iter().copied().collect();
            prop_assert_eq!(classes_of(&split.fit), all.clone());
            let judged = classes_of(&split.held_out);
            for class in all {
                let told = unjudged.iter().any(|unjudged| unjudged.class == usize::from(class));
                prop_assert_eq!(told, !judged.contains(&class));
            }
            prop_assert_eq!(&split, &hold_out(&classes, &groups, 0.25, seed).0);

            let folds = folds(&classes, &groups, &split.fit, 3, seed);
            let mut judged: Vec<u32> = folds.iter().flat_map(|fold| fold.held_out.clone()).collect();
            judged.sort_unstable();
            prop_assert!(folds.is_empty() || judged == split.fit);
            for fold in folds {
                prop_assert!(groups_of(&fold.fit).is_disjoint(&groups_of(&fold.held_out)));
            }
        }
    }
}
