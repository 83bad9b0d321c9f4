//! `#[purlin::test]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, FnArg, ItemFn, Result};

/// The function as a test that runs on each runner.
pub fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(
            arguments,
            "#[purlin::test] takes nothing: the environment variable PURLIN_TEST_RUNNERS names the runners",
        ));
    }
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
    } = syn::parse2(item)?;
    let name = &sig.ident;
    if let Some(asyncness) = &sig.asyncness {
        return Err(Error::new_spanned(
            asyncness,
            "a test of a pipeline is no async function: running the pipeline waits for its end",
        ));
    }
    if !sig.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &sig.generics,
            "a test has no generic parameters",
        ));
    }
    if sig.inputs.len() != 1 || !matches!(sig.inputs.first(), Some(FnArg::Typed(_))) {
        return Err(Error::new_spanned(
            &sig,
            format!("a test takes the pipeline and nothing else: fn {name}(p: TestPipeline)"),
        ));
    }
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        #vis fn #name() {
            #sig #block
            ::purlin::testing::on_each_runner(
                ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)),
                #name,
            );
        }
    })
}
