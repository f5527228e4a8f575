/** Entries that several maps share; a map of size n sees the first n. */
interface Log<K, V> {
  readonly keys: K[];
  readonly values: V[];
  readonly places: Map<K, number>;
}

/**
 * An immutable map that shares its entries with the maps it grew from, so that a thousand maps that each add one entry
 * cost as much as one.
 */
class GrownMap<K, V> implements ReadonlyMap<K, V> {
  readonly size: number;
  readonly log: Log<K, V>;

  constructor(log: Log<K, V>, size: number) {
    this.log = log;
    this.size = size;
  }

  get(key: K): V | undefined {
    const place = this.log.places.get(key);
    return place !== undefined && place < this.size ? this.log.values[place] : undefined;
  }

  has(key: K): boolean {
    const place = this.log.places.get(key);
    return place !== undefined && place < this.size;
  }

  *entries(): MapIterator<[K, V]> {
    for (let i = 0; i < this.size; i++) yield [this.log.keys[i]!, this.log.values[i]!];
  }

  keys(): MapIterator<K> {
    return this.log.keys.slice(0, this.size).values();
  }

  values(): MapIterator<V> {
    return this.log.values.slice(0, this.size).values();
  }

  [Symbol.iterator](): MapIterator<[K, V]> {
    return this.entries();
  }

  forEach(visit: (value: V, key: K, map: ReadonlyMap<K, V>) => void): void {
    for (const [key, value] of this) visit(value, key, this);
  }
}

/** The map with one more entry, or with another value for a key that it has; the given map stays as it is. */
export function grown<K, V>(map: ReadonlyMap<K, V>, key: K, value: V): ReadonlyMap<K, V> {
  // Only the newest map may write behind the entries that it sees.
  const newest = map instanceof GrownMap && map.size === map.log.keys.length && !map.has(key);
  const log: Log<K, V> = newest ? map.log : copied(map);
  const place = log.places.get(key) ?? log.keys.length;
  log.places.set(key, place);
  log.keys[place] = key;
  log.values[place] = value;
  return new GrownMap(log, log.keys.length);
}

function copied<K, V>(map: ReadonlyMap<K, V>): Log<K, V> {
  const keys = [...map.keys()];
  return { keys, values: [...map.values()], places: new Map(keys.map((key, place) => [key, place])) };
}
