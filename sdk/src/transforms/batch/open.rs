//! Batches that are not full yet, by window and group.

use std::hash::Hash;

use purlin_model::Window;
use rustc_hash::FxHashMap;

/// A batch that is being filled.
#[derive(Clone, Debug)]
pub(super) struct Open<T, G> {
    pub window: Window,
    pub group: G,
    pub elements: Vec<T>,
    pub size: usize,
    pub weight: usize,
}

impl<T, G: Clone> Open<T, G> {
    fn new(window: Window, group: G) -> Self {
        Open {
            window,
            group,
            elements: Vec::new(),
            size: 0,
            weight: 0,
        }
    }

    /// Adds an element.
    pub fn push(&mut self, element: T, size: usize, weight: usize) {
        self.elements.push(element);
        self.size = self.size.saturating_add(size);
        self.weight = self.weight.saturating_add(weight);
    }

    /// What it holds, of which it is empty then.
    pub fn take(&mut self) -> Self {
        let fresh = Open::new(self.window.clone(), self.group.clone());
        std::mem::replace(self, fresh)
    }
}

/// All that are being filled.
#[derive(Clone, Debug)]
pub(super) struct Opens<T, G> {
    all: Vec<Open<T, G>>,
    places: FxHashMap<(Window, G), usize>,
    /// Where the last element went: the next one often goes there, too.
    last: usize,
}

impl<T, G> Default for Opens<T, G> {
    fn default() -> Self {
        Opens {
            all: Vec::new(),
            places: FxHashMap::default(),
            last: 0,
        }
    }
}

impl<T, G: Clone + Eq + Hash> Opens<T, G> {
    pub fn clear(&mut self) {
        self.all.clear();
        self.places.clear();
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The place of the batch of this window and group.
    pub fn place(&mut self, window: &Window, group: G) -> usize {
        let is_last = |open: &Open<T, G>| open.window == *window && open.group == group;
        if self.all.get(self.last).is_some_and(is_last) {
            return self.last;
        }
        let new = self.all.len();
        self.last = *self.places.entry((window.clone(), group.clone())).or_insert(new);
        if self.last == new {
            self.all.push(Open::new(window.clone(), group));
        }
        self.last
    }

    /// The batch at a place that [`Opens::place`] gave.
    pub fn get_mut(&mut self, place: usize) -> &mut Open<T, G> {
        &mut self.all[place]
    }

    /// Removes the batch at a place. Places that were given before are no longer right.
    pub fn remove(&mut self, place: usize) -> Open<T, G> {
        let open = self.all.swap_remove(place);
        self.places.remove(&(open.window.clone(), open.group.clone()));
        if let Some(moved) = self.all.get(place) {
            self.places
                .insert((moved.window.clone(), moved.group.clone()), place);
        }
        open
    }

    /// The place of the fullest.
    pub fn fullest(&self) -> usize {
        (0..self.all.len())
            .max_by_key(|place| self.all[*place].size)
            .unwrap_or(0)
    }

    /// All of them, of which there are none then.
    pub fn take_all(&mut self) -> Vec<Open<T, G>> {
        self.places.clear();
        std::mem::take(&mut self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_found_again_after_others_were_removed() {
        let mut opens: Opens<i32, u8> = Opens::default();
        for group in 0..5 {
            let place = opens.place(&Window::Global, group);
            opens.get_mut(place).push(group.into(), 1, 1);
        }
        let place = opens.place(&Window::Global, 1);
        assert_eq!(opens.remove(place).elements, [1]);
        assert_eq!(opens.len(), 4);
        for group in [0u8, 2, 3, 4] {
            let place = opens.place(&Window::Global, group);
            assert_eq!(opens.get_mut(place).elements, [i32::from(group)]);
        }
        assert_eq!(opens.len(), 4);
        let place = opens.place(&Window::Global, 3);
        opens.get_mut(place).push(33, 1, 1);
        assert_eq!(opens.fullest(), place);
        assert_eq!(opens.take_all().len(), 4);
        let place = opens.place(&Window::Global, 3);
        assert!(opens.get_mut(place).elements.is_empty());
    }
}
