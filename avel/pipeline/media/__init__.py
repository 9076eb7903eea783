"""Reads media files onto the grid: decodes them, puts video and audio on one clock, computes log-mel.

A picture is a decoded image of the file; a frame is the one on screen at slot k, the grid's time k / fps.
"""
