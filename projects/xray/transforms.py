"""Transforms of single-channel radiographs: loading, and random views for pretraining.

All transforms take 2-D arrays of uint8, uint16 (white at 65535) or float32 (white at 255), keep the dtype and
never write into their input. Every random draw comes from NumPy's global generator. For masks, and for
resizes and flips that move boxes, the stock transforms of mmcv and mmpretrain are used.
"""

import math

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import RandomFlip
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets.transforms import MultiView, RandomResizedCrop

from projects.radiograph.image import ImagingError
from projects.radiograph.recipe import Recipe, StoreError, prepare
from projects.radiograph.remote import read_radiograph
from projects.radiograph.store import Store, locate

from .resize import resize

_LEVELS = np.arange(256, dtype=np.uint8)
_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 255}
# Codes of cv2.flip by (left-right, top-bottom), and of cv2.rotate by counter-clockwise quarter turns.
_FLIPS = {(True, False): 1, (False, True): 0, (True, True): -1}
_DIRECTIONS = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}
_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


@TRANSFORMS.register_module()
class LoadXray(BaseTransform):
    """Read a radiograph as one channel, window it, and shrink it to `size`.

    `img_path` is a file or an image in a packed store (`radiograph/store.py`), with the same pixels.

    Required key: `img_path`. Added keys: `img` (H, W), `img_shape`, `ori_shape`. If the data set gives
    `height` and `width`, the image must have this size; otherwise boxes would be misplaced.

    Args:
        window: See `radiograph.window.apply_window`.
        dtype: 'uint8', 'uint16' (white at 65535) or 'float32' (white at 255); the last two keep the depth of
            a 16-bit file.
        size: Largest shorter side in px; larger images are shrunk with antialiasing. 0 keeps the size.

    Raises:
        ImagingError: The window or dtype is wrong; the image is missing, damaged or of another size; or the
            store was packed with other settings.
    """

    def __init__(self, window: dict | None = None, dtype: str = 'uint8', size: int = 0):
        self.window = dict(window or dict(type='full'))
        self.dtype = np.dtype(dtype).name
        self.size = size
        # Required settings of a packed store; float32 is read from a 16-bit store.
        self.recipe = Recipe(size, 8 if self.dtype == 'uint8' else 16, self.window)

    def transform(self, results: dict) -> dict:
        """Add the image."""
        path = results['img_path']
        packed = locate(path)
        if packed:
            image = self._from_store(*packed)
        else:
            image = prepare(read_radiograph(path), self.window, self.dtype, self.size)
        # The array of a decoder or a store may be read-only, but PyTorch needs a writable one.
        image = np.require(image, requirements='W')
        expected = results.get('height', image.shape[0]), results.get('width', image.shape[1])
        if image.shape != expected:
            raise ImagingError(
                f'{path}: {image.shape[1]} x {image.shape[0]} px, but the annotation file says '
                f'{expected[1]} x {expected[0]}; convert the data set again, or load at native size (size=0)'
            )
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape
        return results

    def _from_store(self, store: Store, name: str) -> np.ndarray:
        if store.recipe != self.recipe:
            raise StoreError(
                f'{store.folder}: packed with {store.recipe}, but LoadXray asks for {self.recipe}; pack the '
                'images again or correct LoadXray'
            )
        image = store.read(store.position(name))
        return image.astype(np.float32) / np.float32(257) if self.dtype == 'float32' else image

    def __repr__(self) -> str:
        """Show the arguments."""
        return f'{type(self).__name__}(window={self.window}, dtype={self.dtype!r}, size={self.size})'


@TRANSFORMS.register_module()
class XrayResize(BaseTransform):
    """Resize the whole image with antialiasing, in any depth.

    The result is within one gray level of mmcv's `Resize(backend='pillow')`, which takes 8 bits only; mmcv's
    other backend does not antialias. Only for images without boxes, since boxes are not resized.

    Args:
        scale: Width and height in px, or one number for both, as in mmcv.
    """

    def __init__(self, scale: int | tuple[int, int]):
        self.scale = tuple(scale) if isinstance(scale, list | tuple) else (scale, scale)
        if len(self.scale) != 2 or not all(isinstance(side, int) and side > 0 for side in self.scale):
            raise ValueError(f'XrayResize: scale={scale}, expected one or two whole numbers of px above 0')

    def transform(self, results: dict) -> dict:
        """Replace the image."""
        width, height = self.scale
        before = results['img'].shape
        results['img'] = resize(results['img'], (height, width))
        results['img_shape'] = (height, width)
        results['scale_factor'] = width / before[1], height / before[0]
        return results

    def __repr__(self) -> str:
        """Show the arguments."""
        return f'{type(self).__name__}(scale={self.scale})'


@TRANSFORMS.register_module()
class XrayRandomResizedCrop(RandomResizedCrop):
    """Crop a random part, resize it with antialiasing, flip and rotate it: a view in one step.

    The part and the flips are drawn as in mmpretrain's RandomResizedCrop and mmcv's RandomFlip. The resize is
    within one gray level of `backend='pillow'`. Flipping here instead of after blur and jitter gives the same
    view, since these are isotropic. Only for views without boxes, since boxes are not moved.

    Args:
        scale: Height and width of the view in px, or one number for both.
        crop_ratio_range: Range of the part's area, as a share of the image's area.
        aspect_ratio_range: Range of the part's width / height, drawn log-uniformly.
        flip: Probability of swapping left and right.
        flip_vertical: Probability of swapping top and bottom.
        rot90: Probability of a rotation by 90°, 180° or 270°.
    """

    def __init__(
        self,
        scale: int | tuple[int, int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        flip_vertical: float = 0.0,
        rot90: float = 0.0,
    ):
        super().__init__(scale, crop_ratio_range, aspect_ratio_range, backend='pillow')
        for name, prob in (('flip', flip), ('flip_vertical', flip_vertical), ('rot90', rot90)):
            _check_probability(self, name, prob)
        if rot90 and self.scale[0] != self.scale[1]:
            raise ValueError(f'XrayRandomResizedCrop: rot90={rot90} of {self.scale} px, expected a square')
        self.flip, self.flip_vertical, self.rot90 = flip, flip_vertical, rot90

    def draw(self, image: np.ndarray) -> dict:
        """Draw the arguments of `view` for an image (H, W)."""
        part = self.rand_crop_params(image)
        flips = np.random.rand() < self.flip, np.random.rand() < self.flip_vertical
        turns = np.random.randint(1, 4) if np.random.rand() < self.rot90 else 0
        return dict(part=part, flips=flips, turns=turns)

    def view(self, image: np.ndarray, part: tuple, flips: tuple[bool, bool], turns: int) -> np.ndarray:
        """Return a view of `scale`.

        Args:
            image: (H, W) uint8, uint16 or float32.
            part: y, x, height and width of the crop, in px.
            flips: left and right, top and bottom.
            turns: number of counter-clockwise rotations by 90°, after the flips.
        """
        y, x, height, width = part
        result = resize(image[y : y + height, x : x + width], tuple(self.scale))
        if any(flips):
            result = cv2.flip(result, _FLIPS[flips])
        return cv2.rotate(result, _TURNS[turns]) if turns else result

    def transform(self, results: dict) -> dict:
        """Replace the image by a view of it."""
        image = results['img']
        results['img'] = self.view(image, **self.draw(image))
        results['img_shape'] = results['img'].shape
        return results

    def __repr__(self) -> str:
        """Show the arguments."""
        names = ('scale', 'crop_ratio_range', 'aspect_ratio_range', 'flip', 'flip_vertical', 'rot90')
        return f'{type(self).__name__}({", ".join(f"{name}={getattr(self, name)}" for name in names)})'


@TRANSFORMS.register_module()
class XrayRandomFlip(RandomFlip):
    """mmdet's RandomFlip with a contiguous flipped image.

    The stock transform returns a view with negative strides. Packing copies it pixel by pixel, which takes
    eight times as long as OpenCV's flip. Draws, pixels and boxes are the same as in the stock transform.
    """

    def _flip(self, results: dict) -> None:
        image = results['img']
        super()._flip(results)
        results['img'] = cv2.flip(image, _DIRECTIONS[results['flip_direction']])


@TRANSFORMS.register_module()
class XrayMultiView(MultiView):
    """mmpretrain's MultiView without a copy of the image for each view.

    The stock transform copies the image for each view, which takes a third of the time of two views of a
    packed image. Here the image is read-only instead. A transform that writes into its input must come after
    the crop, which makes a new image; otherwise it fails.
    """

    def transform(self, results: dict) -> dict:
        """Replace the image by a list of views of it."""
        results['img'] = results['img'].view()
        results['img'].flags.writeable = False
        results['img'] = [view(dict(results))['img'] for view in self.transforms]
        return results


class _RandomTransform(BaseTransform):
    """Changes `results['img']` with probability `prob`.

    Args:
        prob: Probability in [0, 1].
    """

    def __init__(self, prob: float):
        _check_probability(self, 'prob', prob)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change the image with probability `prob`."""
        if np.random.rand() < self.prob:
            results['img'] = self.change(results['img'])
            results['img_shape'] = results['img'].shape
        return results

    def change(self, image: np.ndarray) -> np.ndarray:
        """Return the changed image (H, W) with the same dtype."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Show the arguments."""
        return f'{type(self).__name__}({", ".join(f"{k}={v}" for k, v in vars(self).items())})'


@TRANSFORMS.register_module()
class XrayColorJitter(_RandomTransform):
    """Random brightness and contrast as in torchvision's ColorJitter: exposure and, crudely, tube voltage.

    Each factor is U[max(0, 1 - a), 1 + a], and the order of the two is random. Contrast scales about the mean
    of the image. All levels equal torchvision's on an 8-bit PIL image with three equal channels.

    Args:
        brightness: a of the brightness factor, at least 0.
        contrast: a of the contrast factor, at least 0.
        prob: Probability in [0, 1].
    """

    def __init__(self, brightness: float = 0.4, contrast: float = 0.4, prob: float = 0.8):
        super().__init__(prob)
        if brightness < 0 or contrast < 0:
            raise ValueError(
                f'XrayColorJitter: brightness={brightness}, contrast={contrast}, expected at least 0'
            )
        self.brightness = brightness
        self.contrast = contrast

    def change(self, image: np.ndarray) -> np.ndarray:
        """Scale gray levels about black and about the mean, in random order."""
        return jitter(image, **self.draw())

    def draw(self) -> dict:
        """Draw the arguments of `jitter`."""
        return dict(
            brightness=np.random.uniform(max(0, 1 - self.brightness), 1 + self.brightness),
            contrast=np.random.uniform(max(0, 1 - self.contrast), 1 + self.contrast),
            contrast_first=np.random.rand() >= 0.5,
        )


def jitter(image: np.ndarray, brightness: float, contrast: float, contrast_first: bool) -> np.ndarray:
    """Scale gray levels about black (brightness) and about the mean of the image (contrast).

    The mean is computed directly before the contrast step. 8-bit images use a single lookup table.

    Args:
        image: (H, W) uint8, uint16 or float32.
        brightness: Factor; 1 leaves the image as it is.
        contrast: Factor; 1 leaves the image as it is.
        contrast_first: Whether contrast is applied before brightness.
    """
    table = image.dtype == np.uint8
    levels = _LEVELS if table else image
    for about_mean in (contrast_first, not contrast_first):
        if about_mean:
            so_far = image if contrast_first else cv2.LUT(image, levels) if table else levels
            base = cv2.mean(so_far)[0]
            # PIL rounds the mean of whole-numbered levels.
            base = base if image.dtype == np.float32 else int(base + 0.5)
            levels = _blend(levels, base, contrast)
        else:
            levels = _blend(levels, 0, brightness)
    return cv2.LUT(image, levels) if table else levels


def _blend(levels: np.ndarray, base: float, factor: float) -> np.ndarray:
    """Return base + factor * (levels - base), clipped; whole-numbered levels are truncated, as in PIL."""
    moved = levels.astype(np.float32)
    moved -= base
    moved *= factor
    moved += base
    return moved.clip(0, _WHITE[levels.dtype], out=moved).astype(levels.dtype)


@TRANSFORMS.register_module()
class XrayGaussianBlur(_RandomTransform):
    """Blur (unsharpness) with σ ~ U[sigma] as in SimSiam, which uses PIL's: three successive box filters.

    PIL rounds to whole levels after each of six passes, this class only once. Borders are replicated.

    Args:
        sigma: Range of σ in px.
        prob: Probability in [0, 1].
    """

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0), prob: float = 0.5):
        super().__init__(prob)
        self.sigma = _range(self, 'sigma', sigma)

    def change(self, image: np.ndarray) -> np.ndarray:
        """Blur by a random σ."""
        return blur(image, self.draw())

    def draw(self) -> float:
        """Draw σ."""
        return np.random.uniform(*self.sigma)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Filter with three boxes of variance σ²/3 and possibly fractional width.

    Source: Gwosdek et al., Theoretical Foundations of Gaussian Convolution by Extended Box Filtering (2011),
    as implemented in PIL's BoxBlur.c.

    Args:
        image: (H, W) uint8, uint16 or float32.
        sigma: σ in px, above 0.
    """
    variance = sigma**2 / 3
    radius = int((math.sqrt(12 * variance + 1) - 1) / 2)  # of the whole pixels; edge pixels count partly
    edge = (2 * radius + 1) * (radius * (radius + 1) - 3 * variance) / (6 * (variance - (radius + 1) ** 2))
    box = np.array([edge, *[1] * (2 * radius + 1), edge]) / (2 * radius + 1 + 2 * edge)
    kernel = np.convolve(np.convolve(box, box), box)
    if image.dtype == np.uint8:  # tails: a fifth of the time, one level in a thousand by one
        kernel = kernel[kernel > 1 / 512]
        kernel /= kernel.sum()
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)


@TRANSFORMS.register_module()
class XrayGamma(_RandomTransform):
    """Gray level to the power γ with fixed black and white, like another film or detector curve.

    Args:
        gamma: Range of γ, drawn log-uniformly so that γ and 1/γ are equally likely.
        prob: Probability in [0, 1].
    """

    def __init__(self, gamma: tuple[float, float] = (0.7, 1.4), prob: float = 0.5):
        super().__init__(prob)
        self.gamma = _range(self, 'gamma', gamma)

    def change(self, image: np.ndarray) -> np.ndarray:
        """Apply a random γ."""
        white, gamma = np.float32(_WHITE[image.dtype]), np.float32(_log_uniform(self.gamma))
        table = image.dtype == np.uint8
        levels = _LEVELS if table else image
        bent = white * (levels.astype(np.float32) / white) ** gamma
        bent = bent if image.dtype == np.float32 else np.round(bent).astype(image.dtype)
        return cv2.LUT(image, bent) if table else bent


@TRANSFORMS.register_module()
class XrayPoissonNoise(_RandomTransform):
    """Quantum noise: the variance of a gray level is proportional to it.

    A level x corresponds to n = peak · x/white quanta. Poisson(n) is approximated by a Gaussian with mean n
    and variance n, which differs from it only below some ten quanta, that is, in the blackest levels.

    Args:
        peak: Range of the quanta per px at white, drawn log-uniformly. The default fits common digital
            radiographs.
        prob: Probability in [0, 1].
    """

    def __init__(self, peak: tuple[float, float] = (2e3, 5e4), prob: float = 0.5):
        super().__init__(prob)
        self.peak = _range(self, 'peak', peak)

    def change(self, image: np.ndarray) -> np.ndarray:
        """Add noise for a random dose."""
        white, peak = _WHITE[image.dtype], _log_uniform(self.peak)
        # One draw from the global generator seeds a faster generator, which halves the time of
        # np.random.normal.
        fast = np.random.Generator(np.random.SFC64(np.random.randint(2**31)))
        noise = fast.standard_normal(image.shape, dtype=np.float32)
        # std of the level = white/peak · sqrt(peak · x/white) = sqrt(x · white/peak)
        noise *= np.sqrt(image * np.float32(white / peak))
        noise += image
        if image.dtype != np.float32:
            noise = np.round(noise)
        return np.clip(noise, 0, white).astype(image.dtype)


def _check_probability(transform, name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f'{type(transform).__name__}: {name}={value}, expected a probability in [0, 1]')


def _range(transform, name: str, value) -> tuple[float, float]:
    """Check a range of positive numbers."""
    low, high = value
    if not 0 < low <= high:
        raise ValueError(f'{type(transform).__name__}: {name}={value}, expected 0 < low <= high')
    return float(low), float(high)


def _log_uniform(bounds: tuple[float, float]) -> float:
    return float(np.exp(np.random.uniform(*np.log(bounds))))
