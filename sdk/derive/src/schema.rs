//! `#[derive(Schema)]`.

use proc_macro2::{TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Data, DataEnum, DeriveInput, Error, Field, Fields, Generics, Ident, LitStr, Result, Type, Variant,
    parse_quote,
};

/// The implementations for a type.
pub fn expand(mut input: DeriveInput) -> Result<TokenStream> {
    if let Some(lifetime) = input.generics.lifetimes().next() {
        return Err(Error::new(
            lifetime.span(),
            "a schema's type cannot borrow: elements outlive the code that makes them; use String and Vec instead of references",
        ));
    }
    for attribute in &input.attrs {
        if attribute.path().is_ident("schema") {
            return Err(Error::new(
                attribute.span(),
                "#[schema(..)] goes on a field or a case, not on the type",
            ));
        }
    }
    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::purlin::schema::SchemaField));
    }
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => {
                let fields = RowFields::new(fields.named.iter(), Some(&input.ident))?;
                Ok(structure(&input.ident, &input.generics, &fields))
            }
            Fields::Unnamed(fields) => Err(Error::new(
                fields.span(),
                format!(
                    "a schema's fields have names: write `struct {} {{ value: .. }}`",
                    input.ident
                ),
            )),
            Fields::Unit => Err(Error::new(
                input.ident.span(),
                "a schema has at least one field; a struct without fields needs none: use `()` as the element",
            )),
        },
        Data::Enum(data) if data.variants.is_empty() => Err(Error::new(
            input.ident.span(),
            "an enum without cases has no values",
        )),
        Data::Enum(data) if data.variants.iter().all(|v| matches!(v.fields, Fields::Unit)) => {
            enumeration(&input.ident, &input.generics, data)
        }
        Data::Enum(data) => one_of(&input.ident, &input.generics, data),
        Data::Union(data) => Err(Error::new(
            data.union_token.span(),
            "a union has no schema: nobody knows which of its fields is set; use an enum",
        )),
    }
}

/// The name in the schema: that of Rust, or what the attribute says.
fn schema_name(attributes: &[syn::Attribute], ident: &Ident) -> Result<String> {
    let mut name = ident.unraw().to_string();
    for attribute in attributes {
        if !attribute.path().is_ident("schema") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("unknown setting: there is #[schema(name = \"..\")]"));
            }
            let text: LitStr = meta.value()?.parse()?;
            if text.value().is_empty() {
                return Err(Error::new(text.span(), "the name of a field cannot be empty"));
            }
            name = text.value();
            Ok(())
        })?;
    }
    Ok(name)
}

fn unique(names: &[(String, proc_macro2::Span)]) -> Result<()> {
    for (i, (name, span)) in names.iter().enumerate() {
        if names[..i].iter().any(|(other, _)| other == name) {
            return Err(Error::new(
                *span,
                format!("the schema has another field that is called \"{name}\""),
            ));
        }
    }
    Ok(())
}

/// Whether a type's tokens name another type.
fn mentions(tokens: TokenStream, ident: &Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(found) => found == *ident || found == "Self",
        TokenTree::Group(group) => mentions(group.stream(), ident),
        _ => false,
    })
}

fn not_itself(ty: &Type, ident: &Ident) -> Result<()> {
    if mentions(quote!(#ty), ident) {
        return Err(Error::new(
            ty.span(),
            format!(
                "`{ident}` contains itself, which no schema of Beam can: take the inner values out, or #[derive(Element)] \
                 where other SDKs need not read it"
            ),
        ));
    }
    Ok(())
}

/// The fields of a row.
struct RowFields<'a> {
    idents: Vec<&'a Ident>,
    names: Vec<String>,
    types: Vec<&'a Type>,
}

impl<'a> RowFields<'a> {
    fn new(fields: impl Iterator<Item = &'a Field>, owner: Option<&Ident>) -> Result<RowFields<'a>> {
        let mut row = RowFields {
            idents: Vec::new(),
            names: Vec::new(),
            types: Vec::new(),
        };
        let mut spans = Vec::new();
        for field in fields {
            // Only named fields come here.
            let Some(ident) = &field.ident else { continue };
            if let Some(owner) = owner {
                not_itself(&field.ty, owner)?;
            }
            let name = schema_name(&field.attrs, ident)?;
            spans.push((name.clone(), ident.span()));
            row.names.push(name);
            row.idents.push(ident);
            row.types.push(&field.ty);
        }
        unique(&spans)?;
        Ok(row)
    }

    /// A `Vec<Field>`.
    fn schema_fields(&self) -> TokenStream {
        let RowFields { names, types, .. } = self;
        quote! { ::std::vec![#(::purlin::schema::row::field::<#types>(#names)),*] }
    }

    /// Statements that append the row, of expressions that are references to the fields.
    fn write(&self, values: &[TokenStream]) -> TokenStream {
        let types = &self.types;
        quote! {
            ::purlin::schema::row::write_header(
                out,
                &[#(<#types as ::purlin::schema::SchemaField>::is_null(#values)),*],
            );
            #(<#types as ::purlin::schema::SchemaField>::write_present(#values, out);)*
        }
    }

    /// `path { fields }`, read from `input`.
    fn read(&self, path: TokenStream) -> TokenStream {
        let RowFields { idents, names, types } = self;
        let count = idents.len();
        quote! {{
            let mut row = ::purlin::schema::row::RowReader::start(input, #count)?;
            ::core::result::Result::Ok(#path { #(#idents: row.field::<#types>(#names)?),* })
        }}
    }
}

struct Parts {
    name: Ident,
    kind: TokenStream,
    write: TokenStream,
    read: TokenStream,
}

fn schema_type(generics: &Generics, parts: Parts) -> TokenStream {
    let (params, types, clause) = generics.split_for_impl();
    let Parts {
        name,
        kind,
        write,
        read,
    } = parts;
    quote! {
        #[automatically_derived]
        impl #params ::purlin::schema::SchemaType for #name #types #clause {
            fn kind() -> ::purlin::schema::FieldKind {
                #kind
            }
            fn write(&self, out: &mut ::std::vec::Vec<u8>) {
                #write
            }
            fn read(input: &mut &[u8]) -> ::core::result::Result<Self, ::purlin::coders::DecodeError> {
                #read
            }
        }
    }
}

/// `Schema` and `Element`, for what is encoded as a row.
fn row_element(name: &Ident, generics: &Generics, fields: TokenStream) -> TokenStream {
    let (params, types, clause) = generics.split_for_impl();
    let make = quote! { ::purlin::schema::row::schema(::core::any::type_name::<Self>(), || #fields) };
    // One static cannot serve all types of a generic.
    let schema = if generics.params.is_empty() {
        quote! {
            static SCHEMA: ::std::sync::OnceLock<::std::sync::Arc<::purlin::schema::RowSchema>> =
                ::std::sync::OnceLock::new();
            if let ::core::option::Option::Some(schema) = SCHEMA.get() {
                return schema.clone();
            }
            let schema = #make;
            SCHEMA.get_or_init(|| schema).clone()
        }
    } else {
        make
    };
    quote! {
        #[automatically_derived]
        impl #params ::purlin::schema::Schema for #name #types #clause {
            fn schema() -> ::std::sync::Arc<::purlin::schema::RowSchema> {
                #schema
            }
        }

        #[automatically_derived]
        impl #params ::purlin::Element for #name #types #clause {
            fn coder() -> ::purlin::coders::CoderSpec {
                ::purlin::schema::row::row_coder(&<Self as ::purlin::schema::Schema>::schema())
            }
            fn encode(&self, out: &mut ::std::vec::Vec<u8>, _nested: bool) {
                ::purlin::schema::row::encode_row(self, out)
            }
            fn decode(
                input: &mut &[u8],
                _nested: bool,
            ) -> ::core::result::Result<Self, ::purlin::coders::DecodeError> {
                ::purlin::schema::row::decode_row(input)
            }
        }
    }
}

fn structure(name: &Ident, generics: &Generics, fields: &RowFields<'_>) -> TokenStream {
    let values: Vec<TokenStream> = fields.idents.iter().map(|ident| quote!(&self.#ident)).collect();
    let schema_type = schema_type(
        generics,
        Parts {
            name: name.clone(),
            kind: quote! { ::purlin::schema::FieldKind::Row(<Self as ::purlin::schema::Schema>::schema()) },
            write: fields.write(&values),
            read: fields.read(quote!(Self)),
        },
    );
    let element = row_element(name, generics, fields.schema_fields());
    quote! { #schema_type #element }
}

fn case_names(data: &DataEnum) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for variant in &data.variants {
        names.push((schema_name(&variant.attrs, &variant.ident)?, variant.ident.span()));
    }
    unique(&names)?;
    Ok(names.into_iter().map(|(name, _)| name).collect())
}

fn enumeration(name: &Ident, generics: &Generics, data: &DataEnum) -> Result<TokenStream> {
    let names = case_names(data)?;
    let idents: Vec<&Ident> = data.variants.iter().map(|v| &v.ident).collect();
    let schema_type = schema_type(
        generics,
        Parts {
            name: name.clone(),
            kind: quote! {
                ::purlin::schema::row::enumeration_kind(&[#((#names, Self::#idents as i32)),*])
            },
            write: quote! {
                let number = match self { #(Self::#idents => Self::#idents as i32),* };
                ::purlin::schema::SchemaType::write(&number, out)
            },
            read: quote! {
                let number = <i32 as ::purlin::schema::SchemaType>::read(input)?;
                #(if number == Self::#idents as i32 {
                    return ::core::result::Result::Ok(Self::#idents);
                })*
                ::core::result::Result::Err(::purlin::schema::row::no_such_case(number))
            },
        },
    );
    let (params, types, clause) = generics.split_for_impl();
    Ok(quote! {
        #schema_type

        #[automatically_derived]
        impl #params ::purlin::Element for #name #types #clause {
            fn coder() -> ::purlin::coders::CoderSpec {
                <i32 as ::purlin::Element>::coder()
            }
            fn encode(&self, out: &mut ::std::vec::Vec<u8>, nested: bool) {
                let number = match self { #(Self::#idents => Self::#idents as i32),* };
                ::purlin::Element::encode(&number, out, nested)
            }
            fn decode(
                input: &mut &[u8],
                nested: bool,
            ) -> ::core::result::Result<Self, ::purlin::coders::DecodeError> {
                let number = <i32 as ::purlin::Element>::decode(input, nested)?;
                #(if number == Self::#idents as i32 {
                    return ::core::result::Result::Ok(Self::#idents);
                })*
                ::core::result::Result::Err(::purlin::schema::row::no_such_case(number))
            }
        }
    })
}

/// How one case of a one-of is declared, written and read.
fn case(
    owner: &Ident,
    variant: &Variant,
    name: &str,
) -> Result<(TokenStream, TokenStream, TokenStream, TokenStream)> {
    let ident = &variant.ident;
    match &variant.fields {
        Fields::Unit => Ok((
            quote! { ::purlin::schema::row::unit_case(#name) },
            quote! { Self::#ident },
            quote! { ::purlin::schema::SchemaType::write(&true, out); },
            quote! {
                <bool as ::purlin::schema::SchemaType>::read(input)?;
                ::core::result::Result::Ok(Self::#ident)
            },
        )),
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
            let ty = &fields.unnamed[0].ty;
            not_itself(ty, owner)?;
            Ok((
                quote! { ::purlin::schema::row::case::<#ty>(#name) },
                quote! { Self::#ident(value) },
                quote! { <#ty as ::purlin::schema::SchemaType>::write(value, out); },
                quote! { <#ty as ::purlin::schema::SchemaType>::read(input).map(Self::#ident) },
            ))
        }
        Fields::Unnamed(fields) => Err(Error::new(
            fields.span(),
            format!("a case has one value, or fields with names: write `{ident} {{ .. }}`"),
        )),
        Fields::Named(fields) => {
            let row = RowFields::new(fields.named.iter(), Some(owner))?;
            let idents = &row.idents;
            let bound: Vec<Ident> = (0..idents.len()).map(|i| format_ident!("field{i}")).collect();
            let values: Vec<TokenStream> = bound.iter().map(|b| quote!(#b)).collect();
            let schema = row.schema_fields();
            let title = format!("{owner}::{ident}");
            let read = row.read(quote!(Self::#ident));
            Ok((
                quote! {
                    ::purlin::schema::row::row_case(#name, ::purlin::schema::row::schema(#title, || #schema))
                },
                quote! { Self::#ident { #(#idents: #bound),* } },
                row.write(&values),
                read,
            ))
        }
    }
}

fn one_of(name: &Ident, generics: &Generics, data: &DataEnum) -> Result<TokenStream> {
    let names = case_names(data)?;
    let count = names.len();
    let mut fields = Vec::new();
    let mut writes = Vec::new();
    let mut reads = Vec::new();
    for (index, (variant, case_name)) in data.variants.iter().zip(&names).enumerate() {
        let (field, pattern, write, read) = case(name, variant, case_name)?;
        fields.push(field);
        writes.push(quote! {
            #pattern => {
                ::purlin::schema::row::write_case(out, #index, #count);
                #write
            }
        });
        reads.push(quote! { #index => { #read } });
    }
    let schema_type = schema_type(
        generics,
        Parts {
            name: name.clone(),
            kind: quote! {
                ::purlin::schema::row::one_of_kind(<Self as ::purlin::schema::Schema>::schema())
            },
            write: quote! { match self { #(#writes)* } },
            read: quote! {
                match ::purlin::schema::row::read_case(input, #count)? {
                    #(#reads)*
                    case => ::core::result::Result::Err(::purlin::schema::row::no_such_case(case as i32)),
                }
            },
        },
    );
    let element = row_element(name, generics, quote! { ::std::vec![#(#fields),*] });
    Ok(quote! { #schema_type #element })
}
