//! What a source file names, read from its tokens: comments and strings never count, macro calls do.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// What was found, each with its line.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Paths from the crate's root, without `crate`, outside tests.
    pub(crate) uses: Vec<(usize, Vec<String>)>,
    /// First segments of all other paths, outside tests: mostly libraries.
    pub(crate) libraries: Vec<(usize, String)>,
    /// The keyword `unsafe`, in tests too.
    pub(crate) unsafes: Vec<usize>,
}

/// Reads a file that is `depth` modules below its crate's root.
///
/// # Errors
/// It is no Rust, as far as tokens go.
pub(crate) fn scan(text: &str, depth: usize) -> Result<Scan> {
    let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
    let mut scan = Scan::default();
    scan.walk(tokens, depth, false);
    Ok(scan)
}

impl Scan {
    fn walk(&mut self, tokens: TokenStream, depth: usize, test: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    let module = group.delimiter() == Delimiter::Brace
                        && at >= 2
                        && is_ident(&tokens[at - 2], "mod");
                    let test = test || module && is_for_tests(&tokens[..at - 2]);
                    self.walk(group.stream(), depth + usize::from(module), test);
                }
                TokenTree::Ident(ident) if ident == "unsafe" => self.unsafes.push(line(ident)),
                TokenTree::Ident(ident) if !test && !follows_separator(&tokens, at) => {
                    self.path(ident, &tokens, at, depth);
                }
                _ => {}
            }
        }
    }

    /// Takes the path that begins with `first`, if it is one.
    fn path(&mut self, first: &Ident, tokens: &[TokenTree], at: usize, depth: usize) {
        if !is_separator(tokens, at + 1) {
            return;
        }
        let mut supers = 0;
        while tokens
            .get(at + 3 * supers)
            .is_some_and(|token| is_ident(token, "super"))
        {
            supers += 1;
        }
        if first == "crate" {
            self.uses.extend(expand(tokens, at + 3));
        } else if supers == 0 {
            self.libraries.push((line(first), first.to_string()));
        } else if supers == depth {
            self.uses.extend(expand(tokens, at + 3 * supers));
        }
    }
}

/// All paths of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tokens: &[TokenTree], at: usize) -> Vec<(usize, Vec<String>)> {
    match tokens.get(at) {
        Some(TokenTree::Ident(ident)) if is_separator(tokens, at + 1) => {
            let mut paths = expand(tokens, at + 3);
            for (_, path) in &mut paths {
                path.insert(0, ident.to_string());
            }
            if paths.is_empty() {
                vec![(line(ident), vec![ident.to_string()])]
            } else {
                paths
            }
        }
        Some(TokenTree::Ident(ident)) => vec![(line(ident), vec![ident.to_string()])],
        Some(TokenTree::Group(group)) => {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            let branches = inner
                .split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ','));
            branches.flat_map(|branch| expand(branch, 0)).collect()
        }
        // `*`, or the `<` of a type argument: the path so far is the path.
        _ => Vec::new(),
    }
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon =
        |at| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(at) && colon(at + 1)
}

fn follows_separator(tokens: &[TokenTree], at: usize) -> bool {
    at >= 2 && is_separator(tokens, at - 2)
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

/// Whether the attributes at the end of `before` hold `#[cfg(test)]`.
fn is_for_tests(before: &[TokenTree]) -> bool {
    let attributes = before.iter().rev().take_while(|token| match token {
        TokenTree::Group(group) => group.delimiter() != Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == '#',
        token => is_ident(token, "pub"),
    });
    attributes.into_iter().any(|token| match token {
        TokenTree::Group(group) => group.stream().to_string().replace(' ', "") == "cfg(test)",
        _ => false,
    })
}

fn line(ident: &Ident) -> usize {
    ident.span().start().line
}
