//! UBJSON (draft 12), as far as XGBoost writes it: values that are not asked for are passed over.

/// Why it cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ends too early.
    CutOff,
    /// A mark that is none.
    Mark(u8),
    /// Lists in lists without end.
    TooDeep,
}

/// Deeper lists are not read.
const DEEPEST: usize = 64;

pub(super) fn is_one(begin: &[u8]) -> bool {
    // An object, whose first key has its length before it; or an object with the number of its keys.
    matches!(begin, [b'{', b'i' | b'U' | b'I' | b'l' | b'L' | b'#', ..])
}

/// Is told each key of an object, and reads its value.
type Visit<'v, 'a> = &'v mut dyn FnMut(&[u8], &mut Reader<'a>) -> Result<(), Fault>;

/// Reads values.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Fault::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Fault::CutOff)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn mark(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    fn peek(&self) -> Result<u8, Fault> {
        self.rest.first().copied().ok_or(Fault::CutOff)
    }

    fn length(&mut self) -> Result<usize, Fault> {
        let mark = self.mark()?;
        let length = match mark {
            b'i' => i64::from(i8::from_be_bytes(self.array()?)),
            b'U' => i64::from(self.mark()?),
            b'I' => i64::from(i16::from_be_bytes(self.array()?)),
            b'l' => i64::from(i32::from_be_bytes(self.array()?)),
            b'L' => i64::from_be_bytes(self.array()?),
            other => return Err(Fault::Mark(other)),
        };
        usize::try_from(length).map_err(|_| Fault::Mark(mark))
    }

    /// Visits the members of the object that comes next: the visitor reads the value of each key.
    pub fn object(&mut self, depth: usize, visit: Visit<'_, 'a>) -> Result<(), Fault> {
        match self.mark()? {
            b'{' => self.members(depth, visit),
            other => Err(Fault::Mark(other)),
        }
    }

    fn members(&mut self, depth: usize, visit: Visit<'_, 'a>) -> Result<(), Fault> {
        if depth > DEEPEST {
            return Err(Fault::TooDeep);
        }
        let count = match self.peek()? {
            b'#' => {
                self.mark()?;
                Some(self.length()?)
            }
            _ => None,
        };
        let mut read = 0;
        while count.is_none_or(|count| read < count) {
            if count.is_none() && self.peek()? == b'}' {
                self.mark()?;
                break;
            }
            let length = self.length()?;
            let key = self.take(length)?;
            visit(key, self)?;
            read += 1;
        }
        Ok(())
    }

    /// The text that comes next.
    pub fn text(&mut self) -> Result<&'a [u8], Fault> {
        match self.mark()? {
            b'S' => {
                let length = self.length()?;
                self.take(length)
            }
            other => Err(Fault::Mark(other)),
        }
    }

    /// Passes over the value that comes next.
    pub fn skip(&mut self, depth: usize) -> Result<(), Fault> {
        let mark = self.mark()?;
        self.skip_of(mark, depth)
    }

    fn skip_of(&mut self, mark: u8, depth: usize) -> Result<(), Fault> {
        match mark {
            b'Z' | b'N' | b'T' | b'F' => Ok(()),
            b'i' | b'U' | b'C' => self.take(1).map(drop),
            b'I' => self.take(2).map(drop),
            b'l' | b'd' => self.take(4).map(drop),
            b'L' | b'D' => self.take(8).map(drop),
            b'S' | b'H' => {
                let length = self.length()?;
                self.take(length).map(drop)
            }
            b'{' => self.members(depth + 1, &mut |_, reader| reader.skip(depth + 1)),
            b'[' => self.skip_list(depth + 1),
            other => Err(Fault::Mark(other)),
        }
    }

    fn skip_list(&mut self, depth: usize) -> Result<(), Fault> {
        if depth > DEEPEST {
            return Err(Fault::TooDeep);
        }
        let kind = match self.peek()? {
            b'$' => {
                self.mark()?;
                Some(self.mark()?)
            }
            _ => None,
        };
        if kind.is_none() && self.peek()? != b'#' {
            while self.peek()? != b']' {
                self.skip(depth)?;
            }
            return self.mark().map(drop);
        }
        match self.mark()? {
            b'#' => {}
            other => return Err(Fault::Mark(other)),
        }
        let count = self.length()?;
        let width = match kind {
            Some(b'i' | b'U' | b'C') => Some(1),
            Some(b'I') => Some(2),
            Some(b'l' | b'd') => Some(4),
            Some(b'L' | b'D') => Some(8),
            _ => None,
        };
        if let Some(width) = width {
            return self
                .take(count.checked_mul(width).ok_or(Fault::CutOff)?)
                .map(drop);
        }
        for _ in 0..count {
            match kind {
                Some(kind) => self.skip_of(kind, depth)?,
                None => self.skip(depth)?,
            }
        }
        Ok(())
    }
}
