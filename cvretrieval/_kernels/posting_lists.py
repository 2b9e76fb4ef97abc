"""Posting lists: for each visual word the images that contain it, and what is known of the word in each of them.

A block of posting lists is four arrays::

    words   int32  (n_lists,)         the words that occur, ascending
    starts  uint32 (n_lists + 1,)     list l is the postings starts_l, …, starts_(l+1) − 1
    images  uint16 (n_postings,)      numbers of images within the block, ascending in each list
    values  (n_postings,) or (n_postings, n_columns)
                                      counts of the word in the image, or signatures of its features
"""

from __future__ import annotations

import numpy as np

from cvretrieval._kernels._jit import njit


@njit
def count_kept(starts, images, places, numbers, sizes):
    """Count what `copy_postings` copies: sizes[places_l] += |{p of list l : numbers[images_p] ≥ 0}|.

    Parameters
    ----------
    starts : uint32 (n_lists + 1,)
    images : uint16 (n_postings,)
    places : int64 (n_lists,)
        The list that each list becomes part of.
    numbers : int32 (65536,)
        The number that each image is given; negative for images left out.
    sizes : int64 (n_new_lists,)
        # OUT, added to
    """
    for list_number in range(len(places)):
        count = 0
        for p in range(starts[list_number], starts[list_number + 1]):
            count += 1 if numbers[images[p]] >= 0 else 0
        sizes[places[list_number]] += count


@njit
def copy_postings(starts, images, values, places, numbers, ends, new_images, new_values):
    """Append the postings of images that are kept to longer lists, in their order, with new numbers of the images.

    Parameters
    ----------
    starts : uint32 (n_lists + 1,)
    images : uint16 (n_postings,)
    values : (n_postings, n_columns)
    places : int64 (n_lists,)
    numbers : int32 (65536,)
        As for `count_kept`.
    ends : int64 (n_new_lists,)
        Where the next posting of each list goes.  # OUT, moved on
    new_images : uint16 (n_new_postings,)
        # OUT
    new_values : (n_new_postings, n_columns)
        # OUT
    """
    n_columns = values.shape[1]
    for list_number in range(len(places)):
        end = ends[places[list_number]]
        for p in range(starts[list_number], starts[list_number + 1]):
            number = numbers[images[p]]
            if number >= 0:
                new_images[end] = number
                for column in range(n_columns):
                    new_values[end, column] = values[p, column]
                end += 1
        ends[places[list_number]] = end


@njit
def count_images(starts, images, keys, frequency):
    """Count the different images of each list: frequency_l = |{images_p : p of list l, keys[images_p] ≥ 0}|.

    Parameters
    ----------
    starts : uint32 (n_lists + 1,)
    images : uint16 (n_postings,)
    keys : int64 (n_images,)
        Negative for removed images.
    frequency : int64 (n_lists,)
        # OUT
    """
    for list_number in range(len(frequency)):
        count, last = 0, -1
        for p in range(starts[list_number], starts[list_number + 1]):
            image = np.int64(images[p])
            if image != last and image < len(keys) and keys[image] >= 0:
                count += 1
            last = image
        frequency[list_number] = count


@njit
def add_squares(words, starts, images, values, weights, squares):
    """Add w_k v² of every posting to its image: squares_i += Σ_{p : images_p = i} weights[words_p] · values_p².

    Each image adds up its words in ascending order, so the sum depends on the image alone.

    Parameters
    ----------
    words : int32 (n_lists,)
    starts : uint32 (n_lists + 1,)
    images : uint16 (n_postings,)
    values : (n_postings,)
    weights : float64 (n_words,)
    squares : float64 (65536,)
        # OUT, added to
    """
    for list_number in range(len(words)):
        weight = weights[words[list_number]]
        for p in range(starts[list_number], starts[list_number + 1]):
            value = np.float64(values[p])
            squares[images[p]] += weight * (value * value)


@njit
def add_weights(words, starts, images, weights, squares):
    """Add w_k of every posting to its image: squares_i += Σ_{p : images_p = i} weights[words_p].

    Parameters
    ----------
    words : int32 (n_lists,)
    starts : uint32 (n_lists + 1,)
    images : uint16 (n_postings,)
    weights : float64 (n_words,)
    squares : float64 (65536,)
        # OUT, added to
    """
    for list_number in range(len(words)):
        weight = weights[words[list_number]]
        for p in range(starts[list_number], starts[list_number + 1]):
            squares[images[p]] += weight


@njit
def count_rows(starts, images, rows, sizes):
    """Count the postings of some images: sizes[rows[images_p]] += 1 where rows[images_p] ≥ 0.

    Parameters
    ----------
    starts : uint32 (n_lists + 1,)
    images : uint16 (n_postings,)
    rows : int32 (65536,)
        The row that each image becomes; negative for other images.
    sizes : int64 (n_rows,)
        # OUT, added to
    """
    for p in range(starts[0], starts[len(starts) - 1]):
        if rows[images[p]] >= 0:
            sizes[rows[images[p]]] += 1


@njit
def gather_rows(words, starts, images, rows, ends, row_words, sources):
    """Write the words of some images row by row, ascending in each, and the postings that they come from.

    Parameters
    ----------
    words : int32 (n_lists,)
    starts : uint32 (n_lists + 1,)
    images : uint16 (n_postings,)
    rows : int32 (65536,)
        As for `count_rows`.
    ends : int64 (n_rows,)
        Where the next word of each row goes.  # OUT, moved on
    row_words : int32 (n_found,)
        # OUT
    sources : int64 (n_found,)
        # OUT
    """
    for list_number in range(len(words)):
        for p in range(starts[list_number], starts[list_number + 1]):
            row = rows[images[p]]
            if row >= 0:
                row_words[ends[row]] = words[list_number]
                sources[ends[row]] = p
                ends[row] += 1
