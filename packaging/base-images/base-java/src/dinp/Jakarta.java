package dinp;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileVisitOption;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import org.apache.tomcat.jakartaee.EESpecProfile;
import org.apache.tomcat.jakartaee.EESpecProfiles;
import org.apache.tomcat.jakartaee.Migration;

/**
 * Lets an application that was written for Tomcat 9 and older (javax.servlet) run with Tomcat 10 (jakarta.servlet).
 *
 * <p>Only files that change are written, to lie over the application's own: /tmp counts to the memory of the instance.
 * Tomcat can convert classes when it loads them, too, but then finds neither servlets by their annotations nor what stands
 * in META-INF/services, and leaves pages as they are.
 */
final class Jakarta {
    private static final EESpecProfile PROFILE = EESpecProfiles.TOMCAT;
    private static final Set<String> TEXTS =
            Set.of("jsp", "jspf", "jspx", "tag", "tagf", "tagx", "tld", "xml", "properties", "groovy");
    /** By how many classes one of both has to lead, for the other to be no more than what a library also knows. */
    private static final int CLEAR_LEAD = 20;

    private Jakarta() {}

    /** Whether the application is for javax.servlet; the environment's TOMCAT_JAVAX=yes or no decides where it is set. */
    static boolean isNeeded(Path app) throws IOException {
        String wanted = System.getenv("TOMCAT_JAVAX");
        if ("yes".equals(wanted) || "no".equals(wanted)) {
            return "yes".equals(wanted);
        }
        int lead = 0;
        for (Path file : files(app.resolve("WEB-INF/classes"), Set.of("class"))) {
            lead += vote(text(Files.readAllBytes(file)));
        }
        if (lead != 0) {
            return lead > 0;
        }
        // Those of frameworks for the web first: mostly they decide, and the others need not be read.
        List<Path> jars = files(app.resolve("WEB-INF/lib"), Set.of("jar"));
        jars.sort(Comparator.comparing(file -> !file.getFileName().toString().matches(".*(web|servlet).*")));
        for (Path file : jars) {
            try (ZipFile jar = new ZipFile(file.toFile())) {
                for (ZipEntry entry : Collections.list(jar.entries())) {
                    if (extension(entry.getName()).equals("class")) {
                        lead += vote(text(jar.getInputStream(entry).readAllBytes()));
                    }
                }
            }
            if (Math.abs(lead) >= CLEAR_LEAD) {
                break;
            }
        }
        if (lead != 0) {
            return lead > 0;
        }
        for (Path file : files(app, TEXTS)) {
            if (text(Files.readAllBytes(file)).contains("javax.servlet.")) {
                return true;
            }
        }
        return false;
    }

    /** Writes what of the application changes below a directory. */
    static void convert(Path app, Path destination) {
        long begin = System.nanoTime();
        int count = 0;
        long bytes = 0;
        try {
            Files.createDirectories(destination);
            for (Path file : files(app, null)) {
                Path target = destination.resolve(PROFILE.convert(app.relativize(file).toString()));
                if (convertFile(file, target)) {
                    count++;
                    bytes += Files.size(target);
                }
            }
        } catch (IOException | UncheckedIOException error) {
            System.err.printf("dinp-start: the application is for javax.servlet (Tomcat 9 and older), and could not be "
                    + "converted in %s: %s; Apache's migration tool converts a war beforehand%n",
                    destination, error.getMessage());
            System.exit(1);
        }
        System.err.printf(Locale.ROOT, "dinp-start: the application is for javax.servlet (Tomcat 9 and older): converted "
                + "%d files to jakarta.servlet, %.1f MB in %s, in %.1f s; TOMCAT_JAVAX=no leaves them as they are%n",
                count, bytes / 1e6, destination, (System.nanoTime() - begin) / 1e9);
    }

    private static boolean convertFile(Path file, Path target) throws IOException {
        String extension = extension(file.getFileName().toString());
        boolean isText = TEXTS.contains(extension) || file.getParent().endsWith("META-INF/services");
        if (isText || extension.equals("class")) {
            String text = text(Files.readAllBytes(file));
            if (!isMentioned(text) && !PROFILE.getPattern().matcher(file.toString()).find()) {
                return false;
            }
            Files.createDirectories(target.getParent());
            if (isText) {
                Files.writeString(target, PROFILE.convert(text), ISO_8859_1);
                return true;
            }
        } else if (!extension.equals("jar") || !isMentionedIn(file)) {
            return false;
        }
        Migration migration = new Migration();
        migration.setSource(file.toFile());
        migration.setDestination(target.toFile());
        migration.execute();
        if (!migration.hasConverted()) {
            Files.deleteIfExists(target);
        }
        return migration.hasConverted();
    }

    private static boolean isMentionedIn(Path file) throws IOException {
        try (ZipFile jar = new ZipFile(file.toFile())) {
            for (ZipEntry entry : Collections.list(jar.entries())) {
                if (isMentioned(entry.getName()) || isMentioned(text(jar.getInputStream(entry).readAllBytes()))) {
                    return true;
                }
            }
        }
        return false;
    }

    private static boolean isMentioned(String text) {
        int at = text.indexOf("javax");
        return at >= 0 && PROFILE.getPattern().matcher(text).find(at);
    }

    /** 1 for a class of javax.servlet, -1 for one of jakarta.servlet. */
    private static int vote(String text) {
        int javax = text.contains("javax/servlet/") || text.contains("javax/websocket/") ? 1 : 0;
        int jakarta = text.contains("jakarta/servlet/") || text.contains("jakarta/websocket/") ? 1 : 0;
        return javax - jakarta;
    }

    private static String text(byte[] bytes) {
        return new String(bytes, ISO_8859_1);
    }

    private static List<Path> files(Path directory, Set<String> extensions) throws IOException {
        if (!Files.isDirectory(directory)) {
            return new ArrayList<>();
        }
        try (Stream<Path> paths = Files.walk(directory, FileVisitOption.FOLLOW_LINKS)) {
            return paths.filter(Files::isRegularFile)
                    .filter(path -> extensions == null || extensions.contains(extension(path.getFileName().toString())))
                    .sorted()
                    .collect(Collectors.toList());
        }
    }

    private static String extension(String name) {
        return name.substring(name.lastIndexOf('.') + 1).toLowerCase(Locale.ROOT);
    }
}
