// Where the similarity of two CNN descriptors comes from: red adds to it, blue takes from it.

const RED = [214, 34, 38], BLUE = [38, 86, 214];

/** The magnitude that one place in fifty exceeds: a single peak must not fade all others. */
export function limitOf(maps) {
  const all = maps.flatMap((map) => map.values.flat()).map(Math.abs).sort((a, b) => a - b);
  return all[Math.floor((all.length - 1) * 0.98)] || all[all.length - 1] || 1;
}

/** A map as a canvas with one pixel for each place. */
export function paint(map, limit, strength) {
  const height = map.values.length, width = map.values[0].length;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  map.values.flat().forEach((value, i) => {
    const alpha = Math.min(1, Math.abs(value) / limit) * strength;
    pixels.data.set([...(value < 0 ? BLUE : RED), Math.round(alpha * 255)], i * 4);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}
