//! `#[derive(Element)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, parse_quote};

/// The element by serde.
pub fn expand(mut input: DeriveInput) -> TokenStream {
    let name = input.ident;
    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::core::marker::Send));
        parameter.bounds.push(parse_quote!('static));
    }
    let (_, ty, _) = input.generics.split_for_impl();
    let mut generics = input.generics.clone();
    if !input.generics.params.is_empty() {
        let clause = generics.make_where_clause();
        clause.predicates.push(parse_quote!(
            #name #ty: ::core::clone::Clone + ::purlin::__private::Serialize + ::purlin::__private::DeserializeOwned
        ));
    }
    let (params, _, clause) = generics.split_for_impl();
    quote! {
        impl #params ::purlin::Element for #name #ty #clause {
            fn coder() -> ::purlin::coders::CoderSpec {
                ::purlin::coders::typed::serde_coder::<Self>()
            }
            fn encode(&self, out: &mut ::std::vec::Vec<u8>, _nested: bool) {
                ::purlin::coders::typed::serde_encode(self, out)
            }
            fn decode(
                input: &mut &[u8],
                _nested: bool,
            ) -> ::core::result::Result<Self, ::purlin::coders::DecodeError> {
                ::purlin::coders::typed::serde_decode(input)
            }
        }
    }
}
