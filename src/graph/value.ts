export interface Value { readonly id: number }
